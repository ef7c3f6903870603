"""Rotary embedding and RMS norm in plain torch, written into the output as the kernels do."""

import torch


def _normed(values: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    wide = values.float()
    scale = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + epsilon)
    return (wide * scale).to(values.dtype) * weight


def rms_norm(out: torch.Tensor, values: torch.Tensor, weight: torch.Tensor, epsilon: float) -> None:
    """out = norm(values) * weight."""
    out.copy_(_normed(values, weight, epsilon))


def fused_add_rms_norm(
    values: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, epsilon: float
) -> None:
    """residual += values; values = norm(residual) * weight."""
    residual.add_(values)
    values.copy_(_normed(residual, weight, epsilon))


def rotary_embedding(
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor | None,
    head_size: int,
    table: torch.Tensor,
    is_neox: bool = True,
) -> None:
    """Rotate query and key in place; the table holds cosines, then sines, a row a position."""
    if not is_neox:
        raise NotImplementedError("only the half-split layout stands in")
    cosine, sine = (half[:, None] for half in table[positions.flatten()].float().chunk(2, dim=-1))
    for heads in (query, key):
        if heads is not None:
            _rotate(heads.view(positions.numel(), -1, head_size), cosine, sine)


def _rotate(rows: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> None:
    left, right = rows.float().chunk(2, dim=-1)
    turned = torch.cat((left * cosine - right * sine, right * cosine + left * sine), dim=-1)
    rows.copy_(turned.to(rows.dtype))
