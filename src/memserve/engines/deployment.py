"""One start of an engine: everything about it that decides its memory and its command."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """How a model is spread: cards = tensor x pipeline x data."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: bool = False
    """Whole experts per card instead of slices of every expert."""
    attention_data: int = 1
    """SGLang's DP attention: attention replicated over so many groups of the tensor ranks."""

    @property
    def cards(self) -> int:
        """Cards taken in all."""
        return self.tensor * self.pipeline * self.data


@dataclass(frozen=True)
class Deployment:
    """Everything about one start of an engine that decides its memory. None: the engine's own default."""

    backend: str
    engine_version: str
    quantization: str = "none"
    """As the weights are held: none, gptq, awq, nf4, int8, fp8, w8a8, w4a16, ..."""
    dtype: str = "float16"
    kv_dtype: str = "auto"
    layout: Layout = Layout()
    context: int = 8192
    concurrency: int = 1
    utilization: float | None = None
    """vLLM's gpu_memory_utilization, SGLang's mem_fraction_static, LMDeploy's cache_max_entry_count."""
    max_sequences: int | None = None
    max_batched_tokens: int | None = None
    block_size: int | None = None
    eager: bool = False
    host_layers: int = 0
    """The first layers that stay with the host's processor and memory, where an engine can."""
    kv_bytes: int | None = None
    """A KV pool that the caller fixed in bytes."""
    options: tuple[tuple[str, str], ...] = ()
    """Flags of one engine only, by their long name without dashes."""

    env: tuple[tuple[str, str], ...] = ()
    """Variables that stand before the command."""
    image: str = ""
    """The container that it runs in; empty: the engine is installed with pip."""

    def variable(self, name: str) -> str | None:
        """A variable of the engine's environment, or None."""
        return dict(self.env).get(name)

    def option(self, name: str) -> str | None:
        """The value of an engine's own flag, or None."""
        return dict(self.options).get(name)
