import numpy as np
import pytest

from osculant.core.arrays import namespace

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


def test_a_number_beside_an_array_belongs_to_no_namespace():
    assert namespace(1.0, torch.ones(2)) is namespace(torch.ones(2))
    with pytest.raises(TypeError, match="non-scalar"):
        namespace(1.0)
    assert namespace(1.0, np.ones(2)) is namespace(np.ones(2))


def test_the_namespace_of_a_known_type_first_does_not_settle_the_others():
    namespace(np.ones(2))
    with pytest.raises(TypeError, match="Multiple namespaces"):
        namespace(np.ones(2), torch.ones(2))
