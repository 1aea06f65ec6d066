"""First stage: references are the target photo itself; the adapter learns to see faces.

GPU:  python -m training.stages.reconstruct --device cuda --model base --minutes 6 --compile
CPU:  python -m training.stages.reconstruct --minutes 2
"""

from training.trainer import StageRecipe, run_stage

RECIPE = StageRecipe("reconstruct", same_photo=1.0, high_quality=False, learning_rate=0.001)

if __name__ == "__main__":
    run_stage(RECIPE, __doc__)
