"""The operators under everything that PyTorch does to a function, judged by finite differences."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.autograd.functional import hessian, hvp, jacobian, jvp, vhp
from torch.func import functional_call, grad, jacfwd, jacrev, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from ppool import PPool2d, _library, ppool2d
from ppool.reference import alpha_reference, ppool2d_reference

# PyTorch's own forward mode scripts, and warns of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is:DeprecationWarning")

STEP = 1e-6
Function = Callable[[Tensor], Tensor]


@pytest.fixture(params=["native", "formula"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "formula":
        monkeypatch.setattr(_library, "custom_ops_library", lambda: None)
    elif _library.custom_ops_library() is None:
        pytest.skip("the native library is not built")
    return str(request.param)


def trained(channels: int, *window: Any, seed: int = 0, **options: Any) -> PPool2d:
    """A unit in float64 whose exponents vary from window to window."""
    torch.manual_seed(seed)
    options = {"alpha_init": 3.0, "alpha_min": 0.01, "input_scale": 1.0} | options
    pool = PPool2d(channels, *window, **options).double()
    for parameter in (pool.region.weight, pool.point_weight):
        nn.init.normal_(parameter)
    nn.init.uniform_(pool.point_bias, 2, 5)
    return pool


def images(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).double() + 0.05


def differences(function: Function, x: Tensor) -> Tensor:
    """The Jacobian of ``function`` by central differences, flattened to [outputs, inputs]."""
    columns = []
    for i in range(x.numel()):
        step = torch.zeros(x.numel(), dtype=x.dtype)
        step[i] = STEP
        step = step.reshape(x.shape)
        columns.append(((function(x + step) - function(x - step)) / (2 * STEP)).flatten())
    return torch.stack(columns, 1).detach()


def gradient_of(function: Function) -> Function:
    def gradient(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(function(x), x)[0]

    return gradient


def smooth(window: tuple[Any, ...], **options: Any) -> tuple[Function, Tensor]:
    """A scalar function of a unit whose gradient is that of its value, branch and all."""
    pool = trained(2, *window, detach_branch=False, **options)
    return lambda x: pool(x).square().sum(), images(1, 2, 4, 5)


SECOND: dict[str, Callable[[Function, Tensor], Tensor]] = {
    "hessian": hessian,
    "create_graph": lambda f, x: jacobian(
        lambda x: torch.autograd.grad(f(x), x, create_graph=True)[0], x
    ),
    "func.hessian": lambda f, x: torch.func.hessian(f)(x),
    "jacrev of jacrev": lambda f, x: jacrev(jacrev(f))(x),
    "jacfwd of grad": lambda f, x: jacfwd(grad(f))(x),
    "jacrev of grad": lambda f, x: jacrev(grad(f))(x),
}


@pytest.mark.parametrize("api", SECOND)
@pytest.mark.parametrize("window", [(2,), (3, 2, 1)], ids=str)
def test_second_derivatives_are_those_of_the_gradient(window: tuple[Any, ...], api: str) -> None:
    function, x = smooth(window)
    expected = differences(gradient_of(function), x)
    found = SECOND[api](function, x).reshape(expected.shape)
    assert expected.abs().max() > 1
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("api", [hvp, vhp])
def test_hessian_vector_products(api: Any) -> None:
    function, x = smooth((2,))
    vector = images(*x.shape, seed=5)
    expected = differences(gradient_of(function), x) @ vector.flatten()
    assert torch.allclose(api(function, x, vector)[1].flatten(), expected, atol=1e-6)


def test_second_derivatives_in_the_parameters() -> None:
    pool, x = trained(1, 2), images(2, 1, 4, 4)
    shapes = {name: p.shape for name, p in pool.named_parameters()}
    flat = torch.cat([p.detach().flatten() for p in pool.parameters()])

    def loss(flat: Tensor) -> Tensor:
        parts = torch.split(flat, [math.prod(shape) for shape in shapes.values()])
        named = {k: part.reshape(s) for (k, s), part in zip(shapes.items(), parts, strict=True)}
        return functional_call(pool, named, (x,)).square().sum()

    expected = differences(gradient_of(loss), flat)
    assert torch.allclose(hessian(loss, flat), expected, atol=1e-6)
    assert torch.allclose(torch.func.hessian(loss)(flat), expected, atol=1e-6)


def test_a_detached_branch_is_held_in_the_second_derivative_too() -> None:
    pool, x = trained(2, 2), images(1, 2, 4, 4)
    alpha = pool.alpha(x).detach()
    expected = differences(gradient_of(lambda x: ppool2d(x, alpha, 2).square().sum()), x)
    found = hessian(lambda x: pool(x).square().sum(), x).reshape(expected.shape)
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_planes_minimum_is_held_in_the_second_derivative_too() -> None:
    x = images(1, 1, 4, 4) - 0.5
    lowest, alpha = x.amin(), torch.full((1, 1, 2, 2), 2.5, dtype=x.dtype)
    held = gradient_of(lambda x: (ppool2d(x - lowest, alpha, 2) + lowest).square().sum())
    expected = differences(held, x)
    found = hessian(lambda x: ppool2d(x, alpha, 2, signed=True).square().sum(), x)
    others = x.flatten() != lowest  # a step below the minimum is another function
    assert torch.allclose(found.reshape(16, 16)[:, others], expected[:, others], atol=1e-6)


def test_third_derivatives() -> None:
    function, x = smooth((2,))
    second = grad(lambda x: grad(function)(x).square().sum())
    expected = differences(second, x[:, :, :2, :2])
    found = jacrev(second)(x[:, :, :2, :2]).reshape(expected.shape)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_zeros_ties_and_infinities_leave_second_derivatives_finite() -> None:
    x = torch.tensor([[[[0.0, 1.0, 2.0, 2.0], [0.5, 0.0, 2.0, 1.0]]]], dtype=torch.float64)
    for exponent in (0.0, 0.5, 1.0, 3.0):
        alpha = torch.full((1, 1, 1, 2), exponent, dtype=x.dtype)
        assert hessian(lambda x, a=alpha: ppool2d(x, a, 2).sum(), x).isfinite().all()
    x[..., 3] = torch.inf
    found = hessian(lambda x: ppool2d(x, 2.0, 2)[..., 0].sum(), x)
    assert found.isfinite().all()
    assert found.abs().max() > 0


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("detach", [False, True])
def test_forward_mode_agrees_with_reverse_mode(detach: bool, signed: bool) -> None:
    pool = trained(2, 3, 2, 1, detach_branch=detach, signed=signed, alpha_gradient_scale=0.5)
    x = images(2, 2, 5, 5) - 0.4 * signed
    tangent = images(*x.shape, seed=7)
    expected = jacobian(pool, x).flatten(0, 3).flatten(1) @ tangent.flatten()
    y, found = torch.func.jvp(pool, (x,), (tangent,))
    assert torch.allclose(y, pool(x))
    assert torch.allclose(found.flatten(), expected)
    assert torch.allclose(jvp(pool, x, tangent)[1].flatten(), expected)
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(pool(forward_ad.make_dual(x, tangent)))
        assert torch.allclose(dual.tangent.flatten(), expected)


def test_forward_mode_equals_finite_differences() -> None:
    function, x = smooth((3, 2, 1))
    assert torch.allclose(jacfwd(function)(x).flatten(), differences(function, x)[0], atol=1e-6)
    x, alpha = images(1, 1, 4, 4), images(1, 1, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda alpha: ppool2d(x, alpha, 2), alpha,
        check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True,
    )  # fmt: skip
    x = x.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x, alpha: ppool2d(x, alpha, 2), (x, alpha))


@pytest.mark.parametrize("signed", [False, True])
def test_vmap_over_images_and_over_units(signed: bool) -> None:
    pool, x = trained(3, 3, 2, 1, signed=signed), images(4, 2, 3, 6, 6) - 0.3 * signed
    expected = torch.stack([pool(one) for one in x])
    assert torch.allclose(vmap(pool)(x), expected)
    assert torch.allclose(vmap(pool, 1, 1)(x.transpose(0, 1)).transpose(0, 1), expected)
    assert torch.allclose(vmap(vmap(pool))(x), expected)
    alpha = images(4, 2, 3, 3, 3, seed=3) * 5
    each = [ppool2d(one, a, 3, 2, 1, signed=signed) for one, a in zip(x, alpha, strict=True)]
    pooled = vmap(lambda x, a: ppool2d(x, a, 3, 2, 1, signed=signed))(x, alpha)
    assert torch.allclose(pooled, torch.stack(each))
    pools = [trained(3, 3, 2, 1, seed=seed, signed=signed) for seed in range(3)]
    parameters, _ = torch.func.stack_module_state(pools)  # type: ignore[arg-type]
    together = vmap(lambda p, x: functional_call(pool, p, (x,)), (0, None))(parameters, x[0])
    assert torch.allclose(together, torch.stack([each(x[0]) for each in pools]))


def test_per_sample_gradients() -> None:
    pool, x = trained(3, 2), images(4, 3, 6, 6)
    parameters = {name: p.detach() for name, p in pool.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(pool, parameters, (x,)).square().sum()

    found = vmap(grad(loss), (None, 0))(parameters, x)
    for i, one in enumerate(x):
        expected = torch.autograd.grad(pool(one).square().sum(), list(pool.parameters()))
        for name, value in zip(parameters, expected, strict=True):
            assert torch.allclose(found[name][i], value)


def test_unbatched_equals_batched_forward_and_backward() -> None:
    pool, x = trained(3, 3, 2, 1), images(3, 6, 6)
    assert torch.equal(pool(x), pool(x[None])[0])
    assert torch.equal(pool.alpha(x), pool.alpha(x[None])[0])
    alone, batched = x.clone().requires_grad_(), x[None].clone().requires_grad_()
    first = torch.autograd.grad(pool(alone).square().sum(), [alone, *pool.parameters()])
    second = torch.autograd.grad(pool(batched).square().sum(), [batched, *pool.parameters()])
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other.reshape(one.shape))


def test_fake_and_meta_tensors_have_the_right_shape() -> None:
    with FakeTensorMode():
        assert PPool2d(3, 2)(torch.rand(2, 3, 16, 16)).shape == (2, 3, 8, 8)
        x = torch.rand(2, 3, 16, 16, requires_grad=True)
        PPool2d(3, 3, 2, 1)(x).sum().backward()
        assert x.grad is not None
        assert x.grad.shape == x.shape
    pool = PPool2d(3, 3, 2, 1, ceil_mode=True).to("meta")
    last = torch.empty(2, 3, 16, 16, device="meta", dtype=torch.bfloat16)
    assert pool(last).shape == (2, 3, 9, 9)
    assert pool(last).dtype == torch.bfloat16


def test_traced_and_exported_graphs_compute_the_same() -> None:
    pool = trained(3, 2).float()
    x, other = torch.rand(2, 3, 8, 8), torch.rand(5, 3, 12, 8)
    graph = make_fx(pool)(x)
    assert torch.equal(graph(other), pool(other))
    free = torch.export.Dim.AUTO
    program = torch.export.export(pool, (x,), dynamic_shapes=({0: free, 2: free},))
    assert torch.equal(program.module()(other), pool(other))
    assert torch.ops.ppool.unit.default in {node.target for node in program.graph.nodes}
    gradient = make_fx(gradient_of(lambda x: pool(x).square().sum()))(x)
    assert torch.allclose(gradient(x), gradient_of(lambda x: pool(x).square().sum())(x))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_compiled_units_train(layout: torch.memory_format) -> None:
    pool = trained(3, 3, 2, 1, alpha_gradient_scale=2.0)
    compiled = torch.compile(pool, fullgraph=True, backend="aot_eager")
    x = images(2, 3, 8, 8).contiguous(memory_format=layout).requires_grad_()
    grads = [
        torch.autograd.grad(f(x).square().sum(), [x, *pool.parameters()]) for f in (pool, compiled)
    ]
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other)


def test_fx_traces_units_and_functions() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), PPool2d(4, 2))
    x = torch.rand(1, 3, 10, 10)
    assert torch.equal(torch.fx.symbolic_trace(model)(x), model(x))
    traced = torch.fx.symbolic_trace(lambda x: ppool2d(x, 2.0, 2) + 1)
    assert torch.equal(traced(x), ppool2d(x, 2.0, 2) + 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_torch_jit_traces_and_names_the_way_where_it_cannot_script() -> None:
    pool, x = PPool2d(3, 2), torch.rand(1, 3, 8, 8)
    assert torch.equal(torch.jit.trace(pool, x)(x), pool(x))
    with pytest.raises(TypeError, match=r"cannot be scripted; use torch\.export"):
        torch.jit.script(nn.Sequential(pool))


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation:UserWarning")
def test_quantised_tensors_are_pooled_at_their_own_scale() -> None:
    x = torch.quantize_per_tensor(torch.rand(1, 3, 8, 8), 1 / 255, 0, torch.quint8)
    pool = PPool2d(3, 2)
    y = pool(x)
    assert y.dtype == torch.quint8
    expected = _reference(pool, x.dequantize())
    assert np.abs(y.dequantize().detach().numpy() - expected).max() <= 0.51 / 255


def test_eager_quantisation_leaves_the_unit_alone() -> None:
    from torch.ao import quantization

    model = nn.Sequential(
        quantization.QuantStub(), nn.Conv2d(3, 4, 3), nn.ReLU(), PPool2d(4, 2),
        quantization.DeQuantStub(),
    ).eval()  # fmt: skip
    x = torch.rand(2, 3, 10, 10)
    expected = model(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.qconfig = quantization.get_default_qconfig(torch.backends.quantized.engine)
        prepared = quantization.prepare(model)
        prepared(x)
        converted = quantization.convert(prepared)
    assert isinstance(converted[3].region, nn.Conv2d)
    assert (converted(x) - expected).abs().max() <= 0.05 * expected.abs().max()


def _reference(pool: PPool2d, x: Tensor) -> Any:
    inputs = [t.detach().double().numpy() for t in (x, *pool._parameters_of_branch())]
    w = pool.window
    return ppool2d_reference(inputs[0], alpha_reference(*inputs, w.kernel, w.stride), w.kernel)


def test_opcheck_finds_nothing() -> None:
    pool, x = trained(2, 3, 2, 1, detach_branch=False), images(2, 2, 6, 6).requires_grad_()
    parameters = pool._parameters_of_branch()
    y = pool(x)
    upstream = torch.ones_like(y).requires_grad_()
    alpha = pool.alpha(x).detach().requires_grad_()
    last = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    ops, rest, window = torch.ops.ppool, pool._settings(), pool._settings()[:6]
    torch.library.opcheck(ops.unit.default, (last, *parameters, *rest))
    torch.library.opcheck(ops.ppool2d.default, (x, alpha, *window))
    # Tracing the second derivative for every size takes minutes; it is compiled elsewhere.
    quick = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(
        ops.unit_backward.default, (upstream, x, *parameters, *rest), test_utils=quick
    )
    torch.library.opcheck(
        ops.ppool2d_backward.default, (upstream, x, alpha, *window), test_utils=quick
    )


def test_a_view_that_is_negated_when_read_is_read_as_it_is() -> None:
    # The imaginary part of a conjugate has its sign in a flag, not in memory.
    x = torch.rand(1, 1, 4, 4).to(torch.complex64).mul(1 - 1j).conj().imag
    assert x.is_neg()
    assert torch.equal(ppool2d(x, 2.0, 2), ppool2d(x.resolve_neg().clone(), 2.0, 2))
    assert ppool2d(x, 2.0, 2).min() > 0


@pytest.mark.parametrize(
    "name", ["region.weight", "activation.weight", "point_weight", "point_bias"]
)
@pytest.mark.parametrize("channels", [1, 63, 65])
def test_parameters_of_another_shape_are_refused(name: str, channels: int) -> None:
    pool, x = PPool2d(64, 2), torch.rand(1, 64, 8, 8)
    parent, _, attribute = name.rpartition(".")
    parameter = pool.get_parameter(name)
    pruned = nn.Parameter(parameter.detach()[:1].expand(channels, *parameter.shape[1:]).clone())
    setattr(pool.get_submodule(parent), attribute, pruned)
    for run in (pool, pool.alpha, vmap(pool)):
        with pytest.raises(ValueError, match=r"expected .*64|expected .*got"):
            run(x)


def test_a_kernel_of_another_size_is_refused() -> None:
    pool = PPool2d(4, 2)
    pool.region.weight = nn.Parameter(torch.zeros(4, 1, 3, 3))
    with pytest.raises(ValueError, match=r"w_region: expected \[4, 1, 2, 2\], got \[4, 1, 3, 3\]"):
        pool(torch.rand(1, 4, 8, 8))


def test_a_new_units_hessian_and_pruned_bias() -> None:
    torch.manual_seed(0)
    unit = PPool2d(1, 2, alpha_init=2.0).double()
    x = torch.rand(1, 1, 2, 2).double()
    expected = differences(gradient_of(lambda x: unit(x).square().sum()), x)
    found = hessian(lambda x: unit(x).square().sum(), x)
    assert torch.allclose(found.reshape(4, 4), expected, atol=1e-6)
    assert found.abs().max() > 0.1
    unit = PPool2d(64, 2)
    unit.point_bias = nn.Parameter(torch.zeros(1))
    with pytest.raises(ValueError, match=r"b_point: expected \[64\], got \[1\]"):
        unit(torch.rand(1, 64, 8, 8))
