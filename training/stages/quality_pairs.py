"""Fourth stage: large frontal faces in pairs; likeness meets the prompt again.

GPU:  python -m training.stages.quality_pairs --device cuda --model base --minutes 6 --compile
CPU:  python -m training.stages.quality_pairs --minutes 2
"""

from training.trainer import StageRecipe, run_stage

RECIPE = StageRecipe("quality_pairs", same_photo=0.1, high_quality=True, learning_rate=0.0005)

if __name__ == "__main__":
    run_stage(RECIPE, __doc__)
