"""The packages that a sealed model needs, in the versions and under the names that are installed here."""

from importlib import metadata

from cnnlib.errors import HostError

# A sealed model imports these modules, by the names of the packages that usually bring them.
MODULES = {
    "keras": "keras",
    "mlflow": "mlflow",
    "numpy": "numpy",
    "pandas": "pandas",
    "pillow": "PIL",
    "tensorflow": "tensorflow",
}
# Without it, a model reads all formats but HEIF.
_HEIF = "pillow-heif"


def installed_as(package: str, module: str) -> tuple[str, str] | None:
    """Return (name, version) of the installed package that brings a module, or None if none does.

    A module may come from a package of another name: tensorflow also from tensorflow-cpu, or from a vendor's build.

    >>> installed_as("pillow", "PIL")[0]
    'pillow'
    """
    try:
        return package, metadata.version(package)
    except metadata.PackageNotFoundError:
        # This reads the file list of every installed package.
        names = sorted(set(metadata.packages_distributions().get(module, ())) - {package})
        return next(((name, metadata.version(name)) for name in names), None)


def model_requirements() -> list[str]:
    """Return the requirements of a model that is sealed now, such as keras==3.15.1.

    Raises HostError if a package is not installed. Call it before a long training, not only after it.
    """
    found = []
    for package, module in MODULES.items():
        installed = installed_as(package, module)
        if installed is None:
            raise HostError(
                f"a model cannot be registered: no installed package brings the module {module}; install {package}"
            )
        found.append(_pin(*installed))
    heif = installed_as(_HEIF, "pillow_heif")
    return found + ([_pin(*heif)] if heif else [])


def _pin(name: str, version: str) -> str:
    """Pin a version. A local one, such as 2.21.0+nv26, is on no index, so only the public part counts.

    >>> _pin("tensorflow", "2.21.0+nv26.1")
    'tensorflow==2.21.0'
    """
    return f"{name}=={version.partition('+')[0]}"
