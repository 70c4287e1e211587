"""The demo: the classic tunnel set-up, made, run, shown and removed within seconds."""

from culvert.cli.demo.story import run_demo

__all__ = ["run_demo"]
