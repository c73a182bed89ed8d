"""Builds wheel and sdist, and tries both in clean environments, far from this folder."""

import pathlib
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile

ROOT = pathlib.Path(__file__).parents[1]
SMOKE = """
import importlib.metadata, importlib.util, pathlib, sys
import jax, jax.numpy as jnp, optax, pdt_optax

assert pdt_optax.__version__ == importlib.metadata.version("pdt-optax")
assert (pathlib.Path(pdt_optax.__file__).parent / "py.typed").is_file()
assert importlib.util.find_spec("experiments") is None
assert not {"flax", "matplotlib", "sklearn"} & set(sys.modules)

tx = optax.chain(optax.sgd(0.01), pdt_optax.pdt(snapshot_every=2))
params = jnp.array([1.0, 1.0])
state = tx.init(params)


@jax.jit
def step(params, state):
    updates, state = tx.update(jnp.array([1.0, 10.0]) * params, state, params)
    return optax.apply_updates(params, updates), state


for _ in range(20):
    params, state = step(params, state)
assert pdt_optax.metrics(state).predictions == 3 and jnp.isfinite(params).all()
print("smoke test passed:", pdt_optax.__version__, "jax", jax.__version__)
"""


def run(*command, **options):
    subprocess.run([str(part) for part in command], check=True, **options)


def check_wheel(wheel):
    """Nothing but the sources of the package, its marker, and the metadata."""
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "pdt_optax").rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == sources, names ^ sources


def check_sdist(sdist):
    """Everything that git has and the listing in pyproject.toml names; no caches, no builds."""
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    stray = names - set(tracked) - {"PKG-INFO"}
    assert not stray, stray
    for needed in ("pyproject.toml", "tests/oracle.py", "notebooks/quickstart.ipynb", "LICENSE"):
        assert needed in names, needed


def main():
    with tempfile.TemporaryDirectory() as folder:
        run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
        (wheel,), (sdist,) = (
            list(pathlib.Path(folder).glob(form)) for form in ("*.whl", "*.tar.gz")
        )
        check_wheel(wheel)
        check_sdist(sdist)
        for built in (wheel, sdist):
            clean = pathlib.Path(folder) / f"venv-{built.suffix[1:]}"
            venv.create(clean, with_pip=True)
            run(clean / "bin/python", "-m", "pip", "install", "--quiet", built)
            run(clean / "bin/python", "-I", "-W", "error", "-c", SMOKE, cwd=folder)
            print(built.name, built.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
