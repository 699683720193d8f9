"""The package: what it is called, what it holds and what it needs. The tools are set up in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    name="sparkcnn",
    version="0.1.0",
    description="A CNN image classifier on Spark: train it, track it with MLflow, score at cluster scale",
    license="Apache-2.0",
    # The range that pipelines/spark/prerequisites.py checks before anything is installed.
    python_requires=">=3.10,<3.13",
    packages=[*find_packages(include=["cnnlib*", "pipelines*", "jobs*"]), "jobs.conf"],
    # Settings live at the top of the tree, where people look, and install beside the jobs that read them.
    package_dir={"jobs.conf": "conf"},
    package_data={
        "cnnlib.reports": ["*.css", "*.html"],
        "cnnlib.mnist": ["*.gz", "LICENSE.md"],
        "jobs.conf": ["*.yaml"],
        "pipelines.spark": ["log4j2.properties"],
    },
    extras_require={"heif": ["pillow-heif>=0.22"]},
    entry_points={"console_scripts": ["sparkcnn = jobs.sparkcnn:command"]},
    # Ranges, so that a cluster's own versions will do; requirements/*.txt pin what is tested.
    install_requires=[
        "imagehash>=4.3",
        "jinja2>=3.1",
        "jsonargparse[signatures]>=4.40,<5",
        "keras>=3.12.4,<4",
        "matplotlib>=3.8,<4",
        "mlflow>=2.22,<4",
        "numpy>=1.26,<3",
        "optuna>=4",
        "pandas>=2.2,<3",
        "petastorm>=0.13.1,<0.14",
        "pillow>=10.3",
        "pyarrow>=14.0.1,<26",
        "pydantic>=2.7,<3",
        "pyspark>=3.5,<5",
        "pyyaml>=6",
        "rich>=13",
        "scikit-learn>=1.5",
        "scipy>=1.11",
        "tenacity>=8.2",
        "tensorflow>=2.18,<2.22",
    ],
)
