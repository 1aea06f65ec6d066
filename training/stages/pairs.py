"""Second stage: references and target are different photos of one person; copying stops paying.

GPU:  python -m training.stages.pairs --device cuda --model base --minutes 6 --compile
CPU:  python -m training.stages.pairs --minutes 2
"""

from training.trainer import StageRecipe, run_stage

RECIPE = StageRecipe("pairs", same_photo=0.1, high_quality=False, learning_rate=0.001)

if __name__ == "__main__":
    run_stage(RECIPE, __doc__)
