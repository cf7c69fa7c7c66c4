"""What a notebook may ask of Colab's page."""

from google.colab import called


def enable_custom_widget_manager():
    called("output.enable_custom_widget_manager")


def no_vertical_scroll():
    called("output.no_vertical_scroll")


def clear():
    called("output.clear")
