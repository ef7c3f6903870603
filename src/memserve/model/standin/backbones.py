"""Vision backbones: which of their stages a larger model reads."""

from __future__ import annotations

from typing import Any


class BackboneConfigMixin:
    """Names and numbers of the stages that are read."""

    stage_names: Any

    def set_output_features_output_indices(self, out_features: Any, out_indices: Any) -> None:
        """Align names and numbers; the last stage where neither is given."""
        names = list(self.stage_names)
        if out_features is None and out_indices is None:
            out_indices = [len(names) - 1]
        if out_features is None:
            out_features = [names[index] for index in out_indices]
        if out_indices is None:
            out_indices = [names.index(feature) for feature in out_features]
        self._out_features, self._out_indices = list(out_features), list(out_indices)

    def verify_out_features_out_indices(self) -> None:
        """Names come from the config itself."""

    @property
    def out_features(self) -> Any:
        return self._out_features

    @out_features.setter
    def out_features(self, features: Any) -> None:
        self.set_output_features_output_indices(features, None)

    @property
    def out_indices(self) -> Any:
        return self._out_indices

    @out_indices.setter
    def out_indices(self, indices: Any) -> None:
        self.set_output_features_output_indices(None, indices)


class BackboneMixin:
    """A model that hands out its stages."""

    config: Any
    num_features: Any

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.stage_names = self.config.stage_names
        self.num_features = None

    @property
    def out_features(self) -> Any:
        return self.config._out_features

    @property
    def out_indices(self) -> Any:
        return self.config._out_indices

    @property
    def out_feature_channels(self) -> dict[str, int]:
        return {stage: self.num_features[number] for number, stage in enumerate(self.stage_names)}

    @property
    def channels(self) -> list[int]:
        return [self.out_feature_channels[name] for name in self.out_features]
