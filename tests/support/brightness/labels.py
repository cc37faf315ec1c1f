from jalpose.tasks.labels import ScoreKeys

KEYS = ScoreKeys(
    key="brightness_error",
    parts="error_per_class",
    baseline="mean_brightness_error",
    baseline_name="mean brightness",
    part="class",
    percent=False,
    higher_is_better=False,
    usual_name="MAE",
)
