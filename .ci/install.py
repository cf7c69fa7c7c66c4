#@title Install { display-mode: "form" }
def install(repository=""):
    "Make ssnas_colab importable: from `repository`, else the first way that works. Nothing where it is already."
    import configparser, importlib.metadata, importlib.util, json, os, re, subprocess, sys  # noqa: E401, I001
    from pathlib import Path
    from urllib import parse, request

    class NotInstalled(Exception):
        def _render_traceback_(self):  # the sentence alone
            return [str(self)]

    def importable():
        importlib.invalidate_caches()
        return getattr(importlib.util.find_spec("ssnas_colab"), "origin", None)  # a mere folder of that name has none

    def version(name):
        return next((found.version for found in importlib.metadata.distributions(name=name)), None)

    def pip(*what):  # why it failed; with the torch and numpy that are there, never others
        what += tuple(f"{name}=={version(name)}" for name in ("torch", "torchvision", "numpy") if version(name))
        command = [sys.executable, "-m", "pip", "install", "-q", "--timeout=10", "--retries=1", *what]
        how = {"env": os.environ | {"GIT_TERMINAL_PROMPT": "0"}, "stdin": subprocess.DEVNULL}  # asks for no password
        done = subprocess.run(command, **how, capture_output=True, text=True)
        told = re.findall(r"(?:ERROR|fatal): (.+)", done.stderr) or ["pip failed"]
        return told[0][:200].rstrip(".") if done.returncode else ""

    def checkout():  # for this kernel and all that it starts; no network, and the environment stays as it is
        for folder in (Path.cwd(), *Path.cwd().parents, Path.cwd() / "ssnas_colab"):
            said = configparser.ConfigParser(interpolation=None, delimiters=["="])
            if said.read(folder / "settings.ini") and said["DEFAULT"].get("lib_name") == "ssnas_colab":
                sys.path.insert(0, str(folder))
                os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".strip(os.pathsep)
                needed = said["DEFAULT"]["requirements"].split()
                missing = [one for one in needed if version(re.split("[<>=!~]", one)[0]) is None]
                return f"{folder}, without {' '.join(missing)}" if missing and pip(*missing) else str(folder)

    def opened_from():  # Colab's session service says fileId=https%3A//github.com/USER/REPO/blob/BRANCH/nbs/...
        try:
            service = "http://{COLAB_JUPYTER_IP}:{KMP_TARGET_PORT}/api/sessions".format(**os.environ)
            with request.build_opener(request.ProxyHandler({})).open(service, timeout=2) as answer:
                said = parse.unquote(json.dumps(json.load(answer)))
        except (KeyError, OSError, ValueError):  # not in Colab, or no longer as it was
            return None
        found = re.search(r"https://github\.com/([\w.-]+/[\w.-]+)/blob/([^\s\"]+?)/nbs/", said)
        return found and f"git+https://github.com/{found[1]}@{found[2]}"

    def named(address):  # any address that git takes, for pip
        if "://" not in address:  # ssh in short, or a path
            ssh = re.fullmatch(r"([\w.-]+@[\w.-]+):(.+)", address)
            address = f"ssh://{ssh[1]}/{ssh[2]}" if ssh else f"file://{Path(address).expanduser().absolute()}"
        return address if address.startswith("git+") or address.endswith(".whl") else f"git+{address}"

    if importable():
        return
    place, reason = None if repository else checkout(), ""
    ways = [named(repository)] if repository else [*map(str, Path.cwd().glob("ssnas_colab-*.whl")), "ssnas_colab"]
    ways += [] if repository or place else [opened_from(), "git+GIT_URL"]
    while ways and not place:
        way = ways.pop(0)
        reason = pip(way) if way else reason
        place = way if way and not reason and importable() else None
    if not place:
        todo = "correct" if repository else "upload its wheel beside this notebook, or fill in"
        where = f"from {repository}" if repository else "from anywhere"
        field = "REPOSITORY in the form, then run again"
        raise NotInstalled(f"ssnas_colab could not be installed {where} ({reason}): {todo} {field}")
    place = "the package index" if place == "ssnas_colab" else place.removeprefix("git+")
    print(f"ssnas_colab {importlib.import_module('ssnas_colab').__version__} from {place}")


install(globals().get("REPOSITORY", "").strip())
