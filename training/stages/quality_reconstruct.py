"""Third stage: large frontal faces, mostly the same photo; likeness is sharpened.

GPU:  python -m training.stages.quality_reconstruct --device cuda --model base --minutes 6 --compile
CPU:  python -m training.stages.quality_reconstruct --minutes 2
"""

from training.trainer import StageRecipe, run_stage

RECIPE = StageRecipe("quality_reconstruct", same_photo=0.7, high_quality=True, learning_rate=0.0005)

if __name__ == "__main__":
    run_stage(RECIPE, __doc__)
