"""`download` and `upload`, which here hand over nothing."""

from google.colab import called


def download(filename):
    called(f"files.download {filename}")


def upload():
    called("files.upload")
    return {}
