"""What a curvature matrix looks like, from its products with vectors alone.

All functions but the Fisher's take a symmetric matrix A: an operator such as ``pt.H``, ``pt.G`` or
``pt.H + 0.1``, or a dense array. Products are taken ``at_once`` vectors at a time. What is random
is drawn from ``seed``, an integer, by Python's own generator on the host: the same seed gives the
same vectors of signs on every framework, device and dtype. Every estimate comes with its standard
error, or with residuals.
"""

from .estimators import diagonal as diagonal
from .estimators import frobenius_norm as frobenius_norm
from .estimators import hutchpp as hutchpp
from .estimators import trace as trace
from .fisher import categorical as categorical
from .fisher import empirical_fisher as empirical_fisher
from .fisher import gaussian as gaussian
from .fisher import monte_carlo_fisher as monte_carlo_fisher
from .mass import diagonal_mass as diagonal_mass
from .mass import ols_diagonal_mass as ols_diagonal_mass
from .mass import wigner_diagonal_mass as wigner_diagonal_mass
from .probes import Estimate as Estimate
from .spectrum import Density as Density
from .spectrum import Eigenpairs as Eigenpairs
from .spectrum import eigenpairs as eigenpairs
from .spectrum import spectral_density as spectral_density
