"""Torch tensors as values: what travels, and how it is laid out."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch

from actorflow._core.io.arena import MemfdArena
from actorflow._core.serialization import values
from actorflow._core.serialization.tensors import PRIVATE_BYTES_MIN

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool, torch.complex64, torch.int64, torch.int16, torch.uint8]


def there_and_back(value: Any) -> Any:
    pickled = values.owned_bytes(values.dumps(value))
    return values.loads(pickled.data, pickled.buffers)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (7,), (3, 4), (2, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_type_and_shape_arrives_as_it_was(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.rand(shape) * 10).to(dtype)
    arrived = there_and_back(tensor)
    assert (arrived.dtype, arrived.shape, arrived.stride()) == (tensor.dtype, tensor.shape, tensor.stride())
    assert torch.equal(arrived, tensor)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.rand(3, 4).t(),
        torch.rand(2, 3, 8, 8).to(memory_format=torch.channels_last),
        torch.rand(2, 3, 4).permute(2, 0, 1),
        torch.rand(5, 1, 3).transpose(0, 2),
    ],
    ids=["transposed", "channels_last", "permuted", "with a dimension of one"],
)
def test_a_layout_that_is_dense_is_kept(tensor: torch.Tensor) -> None:
    arrived = there_and_back(tensor)
    assert torch.equal(arrived, tensor)
    assert [s for s, n in zip(arrived.stride(), arrived.shape, strict=True) if n > 1] == [
        s for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1
    ]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.rand(10, 10)[::2, ::3],
        torch.rand(3, 1).expand(3, 1000),
        torch.arange(1_000_000)[10:20],
        torch.rand(9).as_strided((3, 3), (1, 1)),
    ],
    ids=["strided", "expanded", "slice", "overlapping"],
)
def test_only_what_the_tensor_shows_travels(tensor: torch.Tensor) -> None:
    assert values.dumps(tensor).size() < tensor.numel() * tensor.element_size() + 500
    assert torch.equal(there_and_back(tensor), tensor)


def test_the_bytes_of_a_tensor_are_not_copied_on_their_way_out() -> None:
    tensor = torch.zeros(100_000, dtype=torch.bfloat16)
    pickled = values.dumps({"weights": tensor})
    assert pickled.buffers is not None
    assert len(pickled.data) < 500
    tensor += 1
    assert bytes(pickled.buffers[0][:2]) == b"\x80\x3f", "one, as bfloat16"


def test_what_arrives_may_be_written_to_and_is_nobody_else_s() -> None:
    pickled = values.owned_bytes(values.dumps(torch.zeros(10)))
    first, second = (values.loads(pickled.data, pickled.buffers) for _ in range(2))
    first += 1
    assert second.sum() == 0


def test_gradients_parameters_and_modules() -> None:
    assert there_and_back(torch.rand(3, requires_grad=True)).requires_grad
    assert not there_and_back(torch.rand(3)).requires_grad
    module = torch.nn.Sequential(torch.nn.Linear(30, 40), torch.nn.BatchNorm1d(40))
    arrived = there_and_back(module)
    assert type(arrived[0].weight) is torch.nn.Parameter
    assert arrived[0].weight.requires_grad
    batch = torch.rand(5, 30)
    assert torch.equal(arrived.eval()(batch), module.eval()(batch))


def test_a_tensor_that_stands_twice_in_a_value_is_one_again() -> None:
    tensor = torch.rand(10)
    first, second = there_and_back([tensor, tensor])
    assert first is second


@pytest.mark.parametrize(
    "tensor",
    [torch.eye(3).to_sparse(), torch.rand(3, dtype=torch.complex64).conj(), torch.rand(3, dtype=torch.complex64).conj().imag],
    ids=["sparse", "conjugate", "negative"],
)
def test_what_is_not_plain_goes_torch_s_own_way(tensor: torch.Tensor) -> None:
    def dense(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to_dense() if tensor.is_sparse else tensor.resolve_conj().resolve_neg()

    assert torch.equal(dense(there_and_back(tensor)), dense(tensor))


def test_attributes_of_a_tensor_are_kept() -> None:
    tensor = torch.rand(3)
    tensor.label = "weights"  # type: ignore[attr-defined]
    assert there_and_back(tensor).label == "weights"


def test_other_picklers_see_torch_s_own_way() -> None:
    assert b"rebuild_tensor_v2" in pickle.dumps(torch.rand(3))
    assert b"actorflow" not in pickle.dumps(torch.rand(3))


# -- private mappings


@pytest.fixture
def arena() -> Any:
    arena = MemfdArena.create(16 * PRIVATE_BYTES_MIN)
    yield arena
    arena.close()


def stored(arena: MemfdArena, tensor: torch.Tensor, offset: int) -> Any:
    """Write a tensor into the arena; returns how to read it from there."""
    pickled = values.dumps(tensor)
    assert pickled.buffers is not None
    [buffer] = pickled.buffers
    arena.write(offset, buffer)
    size = len(buffer)
    del buffer

    def read(on_gone: Any = lambda: None) -> torch.Tensor:
        view = arena.view(offset, size)
        arena.watch(view, on_gone)
        tensor = values.loads(pickled.data, [view])
        assert isinstance(tensor, torch.Tensor)
        return tensor

    return read


@pytest.mark.parametrize("offset", [0, 4096, 64, 4096 + 192])
def test_semantics_14_a_large_tensor_is_a_private_copy_on_write_mapping(arena: MemfdArena, offset: int) -> None:
    tensor = torch.arange(PRIVATE_BYTES_MIN, dtype=torch.int64)
    read = stored(arena, tensor, offset)
    first, second = read(), read()
    assert torch.equal(first, tensor)
    first[100:200] = -1
    assert first[150] == -1
    assert second[150] == 150, "who else reads it sees nothing of that"
    assert read()[150] == 150
    assert torch.equal(first[200:], tensor[200:])


def test_a_mapping_keeps_what_it_was_made_of_until_it_is_gone(arena: MemfdArena) -> None:
    gone: list[int] = []
    tensor = stored(arena, torch.ones(PRIVATE_BYTES_MIN), 0)(lambda: gone.append(1))
    part = tensor[5:10]
    del tensor
    assert not gone, "a slice of it is there"
    del part
    assert gone == [1]


def test_a_tensor_outlives_the_arena(arena: MemfdArena) -> None:
    read = stored(arena, torch.ones(PRIVATE_BYTES_MIN), 0)
    tensor = read()
    arena.close()
    assert tensor.sum() == PRIVATE_BYTES_MIN


def test_where_there_is_no_more_mapping_to_be_had_it_is_copied(arena: MemfdArena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemfdArena, "private", lambda self, view: None)
    read = stored(arena, torch.ones(PRIVATE_BYTES_MIN), 0)
    first = read()
    first += 1
    assert read().sum() == PRIVATE_BYTES_MIN
