"""From a tree to a release to an installation: versions and notes, the try after a rollout, the way back."""
