"""The adapter: a model that adjusts itself to the images it scores.

`Adapter` wraps `adapt_batch`: episodic by default (every batch starts from the source), or online (the state is carried from
batch to batch).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..imaging.checks import check_choice, check_count
from .batches import balanced_batches, of_groups, rows_by_group, with_left_out
from .loop import adapt_batch, checked
from .protocols import OptimizerMaker, ParamPicker, is_scoring_model, wrapped_metric
from .recipes import recipe_from
from .replays import Replays
from .rules import Statistics
from .screens import Screen
from .state import Inference, Recipe, Result, State
from .streams import Stream


class Adapter:
    """Scores images with a model that adapts to them.

    `Adapter(model)` follows the recipe that the model asks for (`recipes.RECIPES`). The default one: BatchNorm's statistics in
    the first layers, as much of the batch as the measured shift warrants, behind a gate that leaves unshifted batches to the
    source model. Scores are averaged over the symmetric views that the model declares. With losses or statistics of your own
    you get those, without gate, ensemble and views unless you ask.

    Example::

        adapter = Adapter(load_source_model())
        scores = adapter(images)  # (B, 3, H, W) in [0, 1] → (B,)

    Args:
        model: a `QualityModel`, what `wrap_model` returns, or a learned metric of pyiqa or torchmetrics, which is wrapped. It is
            not copied and not changed.
        losses: functions `loss(context) -> scalar`, each with an optional `weight` and `copies`; None or empty: statistics only.
        statistics: rule of the BatchNorm statistics: `Source()`, `Batch()`, `Blend(alpha)`, `Shrink(prior)`, `Ema(momentum)`,
            `Adaptive()`, `First(rule)`. None: the model's recipe's if the model has BatchNorm layers, else `Source()`.
        params: "norm-affine" (γ and β), or a function model → {full name: parameter}.
        steps, lr, optimizer: of the optimiser; 3 steps of Adam at 1e-3 unless said.
        seed: of the distorted copies (each batch starts a fresh generator from it), and of the shuffle in `predict`.
        gate: a function of the `Result` that answers "adapted", "initial" or "source", batch by batch; None: always adapt.
        views: average the scores over 1, 2 or 8 symmetric views of each image.
        grad_through_statistics, sam_rho: see `Optimisation`. crops_per_image, ensemble, match_source: see `Inference`.
        episodes_per_pass: so many episodes `predict` and `run(groups=…)` adapt in one pass. The same result to rounding.
        recipe: all of that in one value, instead of the single settings.
        capture: on a GPU, record the passes at the first batch of a shape and replay them from then on (see `Replays`). Losses
            and their copies must ask the device for no value; streams are not recorded. Then use it from one thread at a time.
        screen: a function images (B, 3, H, W) → (B,), true where one shows nothing, such as `screens.Blank()`. Pictures whose
            crops all show nothing take no part in adapting and have the source's scores; `Result.skipped["images"]` counts them.

    Raises:
        TypeError, ValueError: no quality model, or impossible settings; settings of the optimiser without a loss.

    Warns:
        UserWarning: the default recipe adapts BatchNorm's statistics, and the model has no such layer.
    """

    def __init__(
        self,
        model: nn.Module,
        losses: Sequence | None = None,
        statistics: Statistics | None = None,
        params: str | ParamPicker | None = None,
        steps: int | None = None,
        lr: float | None = None,
        optimizer: OptimizerMaker | None = None,
        seed: int = 0,
        gate: Callable[[Result], str] | str | None = "default",
        views: int | None = None,
        grad_through_statistics: bool | None = None,
        sam_rho: float | None = None,
        crops_per_image: int | None = None,
        ensemble: Sequence[Statistics] | None = None,
        match_source: bool | None = None,
        episodes_per_pass: int = 1,
        recipe: Recipe | None = None,
        capture: bool = False,
        screen: Screen | None = None,
    ):
        if not is_scoring_model(model):
            model = wrapped_metric(model)
        check_count("episodes_per_pass", episodes_per_pass, 1)
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise ValueError(f"seed must be a whole number; got {seed!r}")
        if isinstance(gate, str) and gate != "default":
            raise ValueError(f"gate must be a function, None or 'default'; got {gate!r}")
        if not (screen is None or callable(screen)):
            raise TypeError(f"screen must be a function of the images such as Blank(), or None; got {screen!r}")
        settings = {
            "losses": losses,
            "statistics": statistics,
            "params": params,
            "steps": steps,
            "lr": lr,
            "optimizer": optimizer,
            "views": views,
            "grad_through_statistics": grad_through_statistics,
            "sam_rho": sam_rho,
            "crops_per_image": crops_per_image,
            "ensemble": ensemble,
            "match_source": match_source,
        }
        settings = {name: value for name, value in settings.items() if value is not None}
        if gate != "default":  # None is a gate that is always open
            settings["gate"] = gate
        if recipe is None:
            recipe = recipe_from(model, settings, seed)
        elif settings:
            name = next(iter(settings))
            part = "inference" if hasattr(recipe.inference, name) else "optimisation"
            raise ValueError(
                f"{name}= stands in the recipe: with dataclasses.replace, "
                f"replace(recipe, {part}=replace(recipe.{part}, {name}=…)) changes it there"
            )
        if recipe.optimisation and recipe.optimisation.steps and not recipe.optimisation.params(model):
            raise ValueError(
                "nothing to adapt: the model has no normalisation layer with γ and β; "
                "pass params=a function that picks parameters"
            )
        self.model: Any = model  # a `ScoringModel` that is a module, which one type cannot say
        self.recipe, self.seed, self.episodes_per_pass, self.screen = recipe, seed, episodes_per_pass, screen
        self._replays = Replays() if capture and torch.cuda.is_available() else None
        self._streams = threading.local()  # a stream belongs to the thread that opened it

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] → scores (B,), in the model's own direction."""
        return self.run(images).scores

    def run(self, images: Tensor, groups: Sequence[int] | None = None) -> Result:
        """Adapt and score, and tell what happened.

        Args:
            images: (B, 3, H, W), RGB in [0, 1].
            groups: (B,) labels; images of one label form an episode of their own. None: one episode.

        Raises:
            ValueError: wrong shape, an empty batch, values that are not finite or outside [0, 1].
        """
        if groups is None:
            return self._one(images)
        images = checked(images, self.model)
        members = rows_by_group(groups, len(images))
        rows = list(members.values())
        return of_groups(dict(zip(members, self._many(images, rows), strict=True)), rows)

    def predict(
        self, images: Tensor | Iterable, batch_size: int = 32, shuffle: bool = True, progress: bool = False
    ) -> Tensor:
        """Score a whole data set in episodes of about `batch_size` images.

        Args:
            images: a tensor (N, 3, H, W); or a loader of batches (B, 3, H, W), or of tuples that begin with one.
            batch_size: for a tensor. The rest is spread over the batches (33 images make 17 + 16, not 32 + 1).
            shuffle: for a tensor: draw the episodes in an order seeded by `seed`, as neighbours in a folder are alike. The
                crops of one picture stay together, and `batch_size` counts them all.
            progress: show a progress bar.

        Returns:
            (N,) in the order of `images`.

        Raises:
            TypeError, ValueError: bad images, no images, or N no multiple of `crops_per_image`.
        """
        if not isinstance(images, Tensor):
            if not isinstance(images, Iterable):
                raise TypeError(f"expected images (N, 3, H, W), or a loader of batches (B, 3, H, W); got {images!r}")
            batches = (batch[0] if isinstance(batch, (tuple, list)) else batch for batch in images)
            total = len(images) if isinstance(images, Sized) else None
            scores = [self(batch) for batch in tqdm(batches, total=total, disable=not progress, desc="batches")]
            if not scores:
                raise ValueError("the loader gave no batch: there is nothing to score")
            return torch.cat(scores)
        check_count("batch_size", batch_size, 1)
        images = checked(images, self.model)
        crops = self.recipe.inference.crops_per_image
        if len(images) % crops:
            raise ValueError(f"{len(images)} rows are no whole number of pictures of {crops} crops each")
        pictures = balanced_batches(len(images) // crops, max(1, batch_size // crops), self.seed if shuffle else None)
        episodes = [[crops * i + c for i in batch for c in range(crops)] for batch in pictures]
        scores = torch.empty(len(images), dtype=images.dtype, device=images.device)
        results = self._many(images, episodes, progress)
        for rows, result in zip(episodes, results, strict=True):
            scores[rows] = result.scores.to(scores.dtype)
        return scores

    @contextmanager
    def online(self, predict: str = "after", restart: Callable[[Result], bool] | None = None) -> Iterator[Adapter]:
        """Within this block the state is carried from batch to batch: parameters, statistics, the optimiser's memory.

        A block inside a block starts a stream of its own; when it ends, the outer one goes on. Other threads do not see it.

        Args:
            predict: score each batch "after" or "before" adapting to it; "before", what the batches before it left scores it,
                statistics and parameters, and the first batch is the source's.
            restart: where it is true of a batch's result, such as `Drifted()`, the next batch starts from the source again; the
                result says so under `skipped["stream"]`.
        """
        check_choice("predict", predict, ("after", "before"))
        if not (restart is None or callable(restart)):
            raise TypeError(f"restart must be a function of the result, or None; got {restart!r}")
        outer = self._stream
        self._streams.now = Stream(predict, restart)
        try:
            yield self
        finally:
            self._streams.now = outer

    @property
    def _stream(self) -> Stream | None:
        return getattr(self._streams, "now", None)

    @property
    def _state(self) -> State | None:
        """What this thread's stream carries on; None outside of a block."""
        return self._stream.state if self._stream else None

    def _left_out(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → (B,), true for the crops of a picture that shows nothing.

        Raises:
            TypeError: the screen gives something else.
        """
        crops = self.recipe.inference.crops_per_image
        if self.screen is None or len(images) % crops:  # the loop says what is wrong with that
            return torch.zeros(len(images), dtype=torch.bool)
        found = self.screen(images)
        if not isinstance(found, Tensor) or found.dtype != torch.bool or found.shape != images.shape[:1]:
            raise TypeError(f"screen must give one truth value an image, a tensor (B,) of bool; got {found!r}")
        return found.cpu().view(-1, crops).all(1).repeat_interleave(crops)

    def _one(self, images: Tensor) -> Result:
        """An episode; what shows nothing goes round it."""
        if self.screen is None:
            return self._adapted(images)
        images = checked(images, self.model)
        out = self._left_out(images)
        if not out.any():
            return self._adapted(images)
        inference = self.recipe.inference
        plain = Inference(views=inference.views, crops_per_image=inference.crops_per_image)
        (alone,), _ = adapt_batch(self.model, State(), images[out], Recipe(plain))
        return with_left_out(None if out.all() else self._adapted(images[~out]), alone, out)

    def _adapted(self, images: Tensor) -> Result:
        stream = self._stream
        if stream is None:
            return adapt_batch(self.model, State(), images, self.recipe, run=self._replays)[0][0]
        return stream.score(self.model, images, self.recipe)

    def _many(self, images: Tensor, episodes: list[list[int]], progress: bool = False) -> list[Result]:
        """Run episodes given by their rows; neighbours of one size share a pass."""
        results: list[Result] = []
        blank = [self.screen is not None and bool(self._left_out(images[rows]).any()) for rows in episodes]
        sizes = [0 if own else len(rows) for own, rows in zip(blank, episodes, strict=True)]  # 0: for a pass of its own
        with tqdm(total=len(episodes), disable=not progress, desc="batches") as bar:
            while (done := len(results)) < len(episodes):
                together = self.episodes_per_pass if self._state is None and sizes[done] else 1
                ahead = range(done, min(done + together, len(episodes)))
                same = [episodes[i] for i in takewhile(lambda i, size=sizes[done]: sizes[i] == size, ahead)]
                if len(same) == 1:
                    results.append(self._one(images[same[0]]))
                else:
                    rows = torch.cat([images[r] for r in same])
                    results += adapt_batch(self.model, State(), rows, self.recipe, len(same), self._replays)[0]
                bar.update(len(same))
        return results
