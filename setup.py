"""Build from settings.ini alone: no build dependency beyond setuptools, no pyproject.toml."""
import configparser
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.sdist import sdist

here = Path(__file__).resolve().parent
parser = configparser.ConfigParser(interpolation=None, delimiters=["="])
parser.read(here / "settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]


class SdistWithSettings(sdist):
    """A source archive that can be built: it carries settings.ini."""

    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        shutil.copy(here / "settings.ini", Path(base_dir) / "settings.ini")


setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8") if (here / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    license="Apache-2.0",
    url=cfg["git_url"],
    keywords=cfg["keywords"].split(),
    packages=find_packages(include=["ssnas_colab", "ssnas_colab.*"]),
    package_data={"ssnas_colab": ["py.typed", "__init__.pyi", "*.schema.json"]},
    python_requires=">=" + cfg["min_python"],
    install_requires=cfg["requirements"].split(),
    extras_require={
        key.removesuffix("_requirements"): value.split() for key, value in cfg.items() if key.endswith("_requirements")
    },
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": ["ssnas_colab=ssnas_colab._modidx:d"],
    },
    cmdclass={"sdist": SdistWithSettings},
    zip_safe=False,
)
