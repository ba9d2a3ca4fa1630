"""A GPU for machines that have none: CPU tensors that say ``cuda:0``, and break where CUDA's would.

Values are real, computed on the CPU, so whole trainings run. It enforces that

- the two devices do not mix (0-dimensional CPU tensors, CPU indices and copies may, as on CUDA);
- NumPy gets no tensor of the device, and no generator serves the other device;
- nothing looks at a value while ``torch.cuda.set_sync_debug_mode("error")`` is on;
- the device has random numbers of its own.

Not modeled: streams, graphs, the reuse of memory, rounding (TF32, float16), what C++ makes by
itself.
"""

import contextlib

import torch
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA, aten = torch.device("cuda", 0), torch.ops.aten
MIXED = "Expected all tensors to be on the same device, but found at least two: cuda:0 and cpu"
_torch = {"generator": torch.Generator, "autocast": torch.autocast.__init__}


class _State:
    sync, random = "default", _torch["generator"]()


class Pretend(torch.Tensor):
    """A CPU tensor that says it is on the device."""

    def __repr__(self, **_):
        return f"{_plain(self.detach())!r} on {CUDA}"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            return _called(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _computed(func, args, kwargs or {})


class _Calls(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return _called(func, args, kwargs or {})


def _pretend(x):
    if not isinstance(x, torch.Tensor) or isinstance(x, Pretend):
        return x
    return torch.Tensor._make_subclass(Pretend, x, x.requires_grad)


def _plain(x: torch.Tensor) -> torch.Tensor:
    """The same memory, as the CPU tensor that it is."""
    place = x.untyped_storage(), x.storage_offset(), x.size(), x.stride()
    return torch.empty(0, dtype=x.dtype).set_(*place)


def _there(x) -> bool:
    """Whether a tensor is on the device."""
    return isinstance(x, Pretend)


def _device_in(values):
    for x in values:
        if isinstance(x, torch.device) or isinstance(x, str) and x.split(":")[0] in ("cuda", "cpu"):
            return torch.device(x)
    return None


def _waits(what) -> None:
    if _State.sync == "error":
        raise RuntimeError(f"called a synchronizing CUDA operation: {what}")


# What Python calls ---------------------------------------------------------------------------

_T = torch.Tensor
_SAYS = {_T.device.__get__: CUDA, _T.is_cuda.__get__: True, _T.is_cpu.__get__: False}
_LOOKS = {_T.tolist, _T.item, _T.__bool__, _T.__float__, _T.__int__, _T.__index__}
_DRAWS = {torch.rand, torch.randn, torch.randint, torch.randperm}


def _called(func, args, kwargs):
    first = args[0] if args else None
    there, generator = _there(first), kwargs.get("generator")
    if there and func in _SAYS:
        return _SAYS[func]
    if there and func in (_T.numpy, _T.__array__):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
    if there and func in _LOOKS:
        _waits(func.__name__)
        if func is _T.tolist:
            return _plain(first).tolist()
    if func in (_T.cpu, _T.cuda):
        func, args = _T.to, (first, func.__name__, *args[1:])
    if there and func is torch.nn.functional.one_hot:  # its parts are made in C++
        return _pretend(func(_plain(first), *args[1:], **kwargs))
    if func is _T.to:
        with torch._C.DisableTorchFunctionSubclass():
            return _moved(first, args[1:], kwargs)
    where = _device_in([kwargs.get("device")])
    to_cuda = where is not None and where.type == "cuda"
    if generator is not None and (to_cuda or there) != (generator.device.type == "cuda"):
        raise RuntimeError(f"Expected another device for generator than {generator.device}")
    if not to_cuda:
        return func(*args, **kwargs)
    kwargs = {**kwargs, "device": "cpu"}
    if func in _DRAWS:
        kwargs["generator"] = generator or _State.random
    return _do(func, args, kwargs)


def _moved(x, rest, kwargs):
    kwargs = dict(kwargs)
    if rest and isinstance(rest[0], torch.Tensor):
        rest = (rest[0].dtype, CUDA if _there(rest[0]) else torch.device("cpu"))
    device = _device_in([*rest, kwargs.pop("device", None)])
    dtype = next((r for r in rest if isinstance(r, torch.dtype)), kwargs.pop("dtype", None))
    kept = [r for r in rest if isinstance(r, bool)]
    if (
        not (kept[:1] or [kwargs.get("non_blocking")])[0]
        and device
        and ((device.type == "cuda") != _there(x))
    ):
        _waits(f"to({device})")
    x = x.to(dtype or x.dtype, memory_format=kwargs.get("memory_format", torch.preserve_format))
    if device is None or (device.type == "cuda") == _there(x):
        return x
    return _Move.apply(x, device.type == "cuda")


class _Move(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, to_cuda):
        ctx.to_cuda = to_cuda
        return _pretend(x.detach().clone()) if to_cuda else _plain(x).clone()

    @staticmethod
    def backward(ctx, grad):
        return (_plain(grad).clone() if ctx.to_cuda else _pretend(grad.clone())), None


# What is computed ----------------------------------------------------------------------------

_INDEX = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default,
          aten._index_put_impl_.default}  # fmt: skip
_WAIT = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default,
         aten._unique2.default, aten.unique_consecutive.default, aten.unique_dim.default,
         aten.bincount.default, aten.repeat_interleave.Tensor, aten.equal.default}  # fmt: skip


def _computed(func, args, kwargs):
    name = func._schema.name.removeprefix("aten::")
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    if func in _WAIT:
        _waits(name)
    if func in _INDEX:
        if not isinstance(args[0], Pretend):
            raise RuntimeError("indices should be on the same device as the indexed tensor (cpu)")
        for i in args[1]:  # a mask is turned into numbers, and a CPU index is copied
            if i is not None and (i.dtype == torch.bool or not isinstance(i, Pretend)):
                _waits(f"{name} by a mask, or by what is on the CPU")
        tensors = [args[0], *(t for t in args[2:3] if isinstance(t, torch.Tensor))]
    if name == "copy_":
        if isinstance(args[0], Pretend) != isinstance(args[1], Pretend):
            _waits("copy_ between devices")
    elif not name.startswith(("_to_copy", "set_")) and any(
        t.dim() and not isinstance(t, Pretend) for t in tensors
    ):
        raise RuntimeError(f"{MIXED} ({name})")
    if any(a.name == "generator" for a in func._schema.arguments):
        kwargs = {**kwargs, "generator": kwargs.get("generator") or _State.random}
    out = _do(func, args, kwargs)
    return _plain(out) if name == "copy_" and not isinstance(args[0], Pretend) else out


def _do(func, args, kwargs):
    with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
        return tree_map(_pretend, func(*args, **kwargs))


# What takes CUDA's place ---------------------------------------------------------------------


class Generator(_torch["generator"]):
    def __new__(cls, device="cpu"):
        made = super().__new__(cls, "cpu")
        made.on = torch.device(device)
        return made

    def __init__(self, device="cpu"):
        pass

    @property
    def device(self):
        return CUDA if self.on.type == "cuda" else self.on


def _autocast(self, device_type, dtype=None, enabled=True, **more):
    if device_type == "cuda":  # a CPU takes forever in float16
        device_type, enabled = "cpu", enabled and dtype != torch.float16
    _torch["autocast"](self, device_type, dtype, enabled, **more)


def _by_device(lists, *more, grouped=Optimizer._group_tensors_by_device_and_dtype):
    there = any(isinstance(t, Pretend) for part in lists for t in part)
    return {(CUDA if there else d, k): v for (d, k), v in grouped(lists, *more).items()}


def active() -> bool:
    """Whether the GPU is a pretended one."""
    return torch.Generator is Generator


@contextlib.contextmanager
def gpu(patch):
    """Pretend that there is a GPU.

    Args:
        patch: pytest's ``monkeypatch``.
    """
    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda *_: "a GPU that is not there",
        "synchronize": lambda *_: _waits("synchronize"),
        "manual_seed_all": _State.random.manual_seed,
        "get_rng_state": lambda *_: _State.random.get_state(),
        "set_rng_state": lambda state, *_: _State.random.set_state(state),
        "set_sync_debug_mode": lambda mode: setattr(_State, "sync", mode),
        "_is_in_bad_fork": lambda: False,
    }.items():
        patch.setattr(torch.cuda, name, value)
    if hasattr(torch, "accelerator"):  # what a DataLoader's thread asks
        patch.setattr(torch.accelerator, "current_device_index", lambda: 0, raising=False)
        patch.setattr(torch.accelerator, "set_device_index", lambda *_: None, raising=False)
    patch.setattr(torch.Tensor, "pin_memory", lambda t, *_: t.clone())
    patch.setattr(torch, "Generator", Generator)
    patch.setattr(torch.autocast, "__init__", _autocast)
    patch.setattr(Optimizer, "_group_tensors_by_device_and_dtype", staticmethod(_by_device))
    for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
        if hasattr(Optimizer, name):  # asks for the device's stream
            patch.setattr(Optimizer, name, lambda self: None)
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with _Calls():
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
        _State.sync = "default"
