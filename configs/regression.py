"""One number a row of numbers, by any method: no data needed.

    python -m jalpose.main --config=configs/regression.py:method=egl_regression

A drawn curve with noise that grows, or --config.data.name=diabetes (shipped with
scikit-learn), or a CSV file of numbers with headings: --config.data.name=csv
--config.data.file=housing.csv, relative to data.dir, --config.data.target=price.
scale=small (the default): 40 rows labelled, + 10 a cycle to 120, a network of two
layers of 64, seconds on two CPU cores. --config.model.hidden='()' is a linear model,
--config.training.variance=True learns a variance too, and with
--config.acquisition.egl_regression.models=process (or linear) Gaussian processes say
what labels may be. scale=paper trains longer: no paper has a protocol for rows.
"""

from jalpose.loop.configs import benchmark

get_config = benchmark(
    "curve",
    task="regression",
    method="egl_regression",
    name="regression_{method}",
    scale="small",
)
