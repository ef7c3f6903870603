"""Pictures through llama.cpp's own encoder (mtmd): a second file, the projector, beside the model's."""

from __future__ import annotations

import ctypes
import secrets
import weakref
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import llama_cpp
from llama_cpp import mtmd_cpp

from memserve.errors import EngineFailed, InvalidInput, ModelUnreadable

_QUIET = llama_cpp.llama_log_callback(lambda *_: None)
PLACE = -1


class Chunk(NamedTuple):
    """Words of a prompt, with their tokens as the key, or tokens of one picture, with its name."""

    key: tuple[Any, ...]
    size: int
    handle: Any
    """None for words."""


class Seen:
    """One prompt with pictures, as the encoder cut it; what it holds is freed with it."""

    def __init__(self, chunks: Any, bitmaps: Sequence[Any]) -> None:
        weakref.finalize(self, _free, chunks, bitmaps)
        places = range(mtmd_cpp.mtmd_input_chunks_size(chunks))
        self.parts = [_chunk(mtmd_cpp.mtmd_input_chunks_get(chunks, place)) for place in places]

    @property
    def ids(self) -> list[int]:
        """Token ids; `PLACE` stands for a picture's."""
        told = (part.key if part.handle is None else [PLACE] * part.size for part in self.parts)
        return [one for ids in told for one in ids]


def _chunk(found: Any) -> Chunk:
    if mtmd_cpp.mtmd_input_chunk_get_type(found) != mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_TEXT:
        name = mtmd_cpp.mtmd_input_chunk_get_id(found)
        return Chunk((name,), mtmd_cpp.mtmd_input_chunk_get_n_tokens(found), found)
    count = ctypes.c_size_t()
    tokens = mtmd_cpp.mtmd_input_chunk_get_tokens_text(found, ctypes.byref(count))
    return Chunk(tuple(tokens[: count.value]), count.value, None)


class Reader:
    """Cuts a written prompt at its pictures, and reads those."""

    def __init__(self, file: Path, llama: Any) -> None:
        self.marker = f"<__picture_{secrets.token_hex(8)}__>"
        asked = mtmd_cpp.mtmd_context_params_default()
        asked.print_timings = asked.warmup = False
        asked.use_gpu = bool(llama_cpp.llama_supports_gpu_offload())
        asked.n_threads, asked.media_marker = llama.n_threads, self.marker.encode()
        mtmd_cpp.mtmd_log_set(_QUIET, None)
        mtmd_cpp.mtmd_helper_log_set(_QUIET, None)
        self._eyes = mtmd_cpp.mtmd_init_from_file(str(file).encode(), llama.model, asked)
        if not self._eyes:
            raise ModelUnreadable(f"{file} is no projector of this model", path=str(file))
        if not mtmd_cpp.mtmd_support_vision(self._eyes):
            raise ModelUnreadable(f"{file} reads no pictures", path=str(file))
        llama._stack.callback(mtmd_cpp.mtmd_free, self._eyes)
        self._llama = llama

    def __call__(self, text: str, images: Sequence[Any]) -> tuple[list[int], Seen]:
        """The ids of a prompt and its pictures."""
        bitmaps = [_bitmap(image) for image in images]
        chunks, words = mtmd_cpp.mtmd_input_chunks_init(), text.encode()
        said = mtmd_cpp.mtmd_input_text(
            text=words, text_len=len(words), add_special=False, parse_special=True
        )
        held = (mtmd_cpp.mtmd_bitmap_p_ctypes * len(bitmaps))(*bitmaps)
        failed = mtmd_cpp.mtmd_tokenize(self._eyes, chunks, ctypes.byref(said), held, len(bitmaps))
        if failed:
            _free(chunks, bitmaps)
            raise InvalidInput("the chat template leaves pictures out, or the model cannot read one of them")
        seen = Seen(chunks, bitmaps)
        return seen.ids, seen

    def read(self, part: Chunk, last: bool) -> None:
        """Compute a picture's tokens behind what the cache holds."""
        llama, after = self._llama, llama_cpp.llama_pos(0)
        where = self._eyes, llama._ctx.ctx, part.handle, llama.n_tokens, 0, llama.n_batch, last
        failed = mtmd_cpp.mtmd_helper_eval_chunk_single(*where, ctypes.byref(after))
        if failed:
            raise EngineFailed(f"llama.cpp cannot compute a picture (error {failed})")
        llama.n_tokens = after.value


def _bitmap(image: Any) -> Any:
    raw = image.tobytes()
    made = mtmd_cpp.mtmd_bitmap_init(
        image.width, image.height, (ctypes.c_uint8 * len(raw)).from_buffer_copy(raw)
    )
    name = blake2b(b"%d %d %b" % (*image.size, raw), digest_size=16).hexdigest()
    mtmd_cpp.mtmd_bitmap_set_id(made, name.encode())
    return made


def _free(chunks: Any, bitmaps: Sequence[Any]) -> None:
    mtmd_cpp.mtmd_input_chunks_free(chunks)
    for bitmap in bitmaps:
        mtmd_cpp.mtmd_bitmap_free(bitmap)
