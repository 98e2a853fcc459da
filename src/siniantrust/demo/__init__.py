"""The demo: a trained network and real photographs that a fresh machine gets by pip alone."""

from siniantrust.demo._run import DemoResult, run_demo
from siniantrust.demo._scenes import SCENES, Scenes, load_scenes

__all__ = ["SCENES", "DemoResult", "Scenes", "load_scenes", "run_demo"]
