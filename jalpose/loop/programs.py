"""What is compiled, kept by what it depends on, for all runs of a process."""

from typing import Any

from jalpose.scoring.passes import Passes
from jalpose.tasks.task import Task
from jalpose.training.companion import CompanionTrainer
from jalpose.training.needs import Companion, Head
from jalpose.training.optimisation import Optimisation
from jalpose.training.trainer import Trainer


class Programs:
    """Trainers and passes: equal networks, tasks and options share them.

    Data sets, seeds, methods and lengths of trainings do not matter, so that runs of
    one process one after the other compile a thing once.

    Args:
      mesh: of the devices.
    """

    def __init__(self, mesh):
        self.mesh = mesh
        self._trainers: dict[Any, Trainer] = {}
        self._companions: dict[Any, CompanionTrainer] = {}
        self._passes: dict[Any, Passes] = {}

    def trainer(
        self, model, task: Task, config: Optimisation, head: Head | None
    ) -> Trainer:
        """The compiled steps of a network, beside a head if there is one."""
        key = (model, task, config, head)
        if key not in self._trainers:
            self._trainers[key] = Trainer(model, task, config, self.mesh, head)
        return self._trainers[key]

    def companion(self, model, task: Task, needed: Companion) -> CompanionTrainer:
        """The compiled steps of a companion beside a network."""
        key = (model, task, needed.learner, needed.batch)
        if key not in self._companions:
            self._companions[key] = CompanionTrainer(
                needed.learner, model, task, self.mesh, needed.batch
            )
        return self._companions[key]

    def passes(
        self,
        model,
        gradient_model,
        task: Task,
        head: Head | None,
        threads: int,
        companion: Companion | None = None,
    ) -> Passes:
        """The passes of a network, of which gradients are taken as `gradient_model`."""
        module = None if head is None else head.module
        learner = None if companion is None else companion.learner
        key = (model, gradient_model, task, module, threads, learner)
        if key not in self._passes:
            self._passes[key] = Passes(
                model,
                task,
                mesh=self.mesh,
                threads=threads,
                gradient_model=gradient_model,
                head=module,
                companion=learner,
            )
        return self._passes[key]
