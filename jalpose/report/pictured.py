"""The sections of a page that show examples, drawn by the task of the runs."""

from collections.abc import Callable, Collection, Iterable, Sequence
from types import ModuleType
from typing import Any

from jalpose.report import album, galleries, interpret, page
from jalpose.report.galleries import Choice
from jalpose.report.gather import Gathered, Run
from jalpose.report.page import Markup, Section
from jalpose.storage.arrays import NEIGHBOUR_IDS, NEIGHBOUR_PROBABILITIES, SCORES


class Sections:
    """Galleries of the runs' examples, what they mean and whose pictures they are.

    Args:
      task: the module `pictures` of the runs' task, see `jalpose.tasks.pictures`.
      found: the runs.
      reference: the method that stands for all where they start from one model.
      photographs: False leaves out every image of the data.
      data_dir: stands in for the data folder that the runs recorded.
    """

    def __init__(
        self,
        task: ModuleType,
        found: Gathered,
        reference: str,
        photographs: bool = True,
        data_dir: str | None = None,
    ):
        self.task, self.found, self.reference = task, found, reference
        self.album = album.Album(task, photographs, data_dir)
        self._pictures = task.make_pictures(found.runs[0].config)

    @property
    def prediction(self) -> tuple[str, ...]:
        """Names of the arrays that hold predictions."""
        return self._pictures.prediction

    @property
    def one(self) -> str:
        """What is drawn on an example, with its article: a pose."""
        return self._pictures.one

    def drawn_seed(self, run: Run) -> int | None:
        """What tells examples of one key apart, see `jalpose.tasks.pictures`."""
        return self.task.drawn_seed(run.config)

    def title(self, names: Collection[str]) -> str:
        """The task and its data sets, for people."""
        terms = self.task.TERMS
        called = [terms[n].called if n in terms else n for n in sorted(names)]
        return f"{self.task.TITLE}: {', '.join(called)}"

    def problems(self) -> list[str]:
        """Sentences on what could not be read so far."""
        return [*self.album.problems, *self.album.unreadable()]

    def explanations(self, choices: Sequence[Choice]) -> list[Section]:
        """A section for each gallery that the arrays of the choices suffice for."""
        parts: list[Section] = []
        pictures = self._pictures

        def add(
            anchor: str,
            title: str,
            draw: Callable[[Sequence[Choice]], Markup],
            needed: Collection[str],
            chosen: Sequence[Choice],
        ) -> None:
            fitting = [choice for choice in chosen if set(needed) <= choice[2].keys()]
            if fitting:
                body = self._with_legend(draw(fitting))
                parts.append(Section(anchor, title, body))

        # Most methods start from one base model: the reference stands for them.
        first = [choice for choice in choices if choice[0].method == self.reference]
        add(
            "chosen",
            "First examples chosen",
            lambda fitting: galleries.chosen(fitting, self.album),
            (),
            choices,
        )
        add(
            "neighbours",
            "Expected gradient norms explained",
            lambda fitting: galleries.neighbours(fitting[0], self.album),
            (NEIGHBOUR_IDS, NEIGHBOUR_PROBABILITIES, SCORES),
            choices,
        )
        if (heats := pictures.heats) is not None:
            add(
                heats.anchor,
                heats.title,
                lambda fitting: galleries.heats(heats, fitting, self.album),
                heats.needs,
                choices,
            )
        if (ranking := pictures.ranking) is not None:
            add(
                ranking.anchor,
                ranking.title,
                lambda fitting: galleries.ranked(ranking, fitting[0], self.album),
                ranking.needs,
                [*first, *choices],
            )
        return parts

    def label_check(self, intro: Markup, bought: Sequence[interpret.Bought]) -> Markup:
        """Suspicious labels drawn, below what they are."""
        runs = {(run.method, run.seed): run for run in self.found.runs}
        drawn = galleries.label_check(bought, runs, self.album)
        return self._with_terms([intro, album.legend(self._pictures.legend), drawn])

    def terms(self) -> Section | None:
        """Whose the pictures are, as far as they were shown."""
        lines = [page.paragraph(terms.rest) for terms in self.album.terms()]
        if not lines:
            return None
        return Section("terms", "Whose photographs these are", page.join(lines))

    def _with_legend(self, body: Markup) -> Markup:
        return self._with_terms([album.legend(self._pictures.legend), body])

    def _with_terms(self, parts: Iterable[Markup]) -> Markup:
        """The line under a gallery on whose pictures it shows."""
        lines: list[Any]
        if not self.album.photographs:
            noun = self._pictures.noun
            lines = [f"Photographs are left out (--no-images): {noun} alone are drawn."]
        else:
            more = page.element("a", "Terms", href="#terms")
            lines = [page.join([t.line, " ", more]) for t in self.album.terms()]
        below = [page.paragraph(line, class_="note terms") for line in lines]
        return page.join([*parts, *below])
