"""Lets diffusers load this folder by itself:

DiffusionPipeline.from_pretrained(folder, custom_pipeline="pipeline", trust_remote_code=True)
"""

from longtake.pipelines.video_pipeline import VideoPipeline as VideoPipeline
