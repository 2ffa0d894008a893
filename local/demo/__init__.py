"""The main job, played on the local cloud with real data: `python -m local.demo`."""
