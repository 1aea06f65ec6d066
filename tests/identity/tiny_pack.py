"""A pack of two generated ONNX models that takes insightface's real loading path without weights.

The detector calls every bright 32-pixel cell a face; the recogniser is a random projection.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CELL = 32  # pixels of the 640-pixel picture
# Per anchor, in cells from the cell's corner: reach of the box, then the five landmarks.
BOX = [2.0, 2.0, 2.0, 2.0]
LANDMARKS = [-0.6, -0.4, 0.6, -0.4, 0.0, 0.3, -0.5, 0.9, 0.5, 0.9]


def build_tiny_pack(folder: Path) -> Path:
    """Write detector.onnx and recogniser.onnx into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(_detector(), folder / "detector.onnx")
    onnx.save(_recogniser(), folder / "recogniser.onnx")
    return folder


def bright_cells(*cells: tuple[int, int]) -> np.ndarray:
    """A black 640x640 picture with white cells at (column, row), one "face" each."""
    picture = np.zeros((640, 640, 3), np.uint8)
    for column, row in cells:
        picture[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = 255
    return picture


def _detector() -> onnx.ModelProto:
    nodes, weights, outputs = [], [], []
    for kind, width in (("score", 1), ("box", 4), ("points", 10)):
        for stride in (8, 16, 32):
            name = f"{kind}{stride}"
            values = {"score": [-20.0], "box": BOX, "points": LANDMARKS}[kind]
            kernel = np.zeros((2 * width, 3, 1, 1), np.float32)
            bias = np.array(values * 2, np.float32)
            if kind == "score" and stride == CELL:
                kernel[0] = 7.0  # black is -1, white 1: the first anchor sees white
                bias[0] = -15.0
            weights += [
                numpy_helper.from_array(kernel, f"{name}_w"),
                numpy_helper.from_array(bias, f"{name}_b"),
                numpy_helper.from_array(np.array([-1, width], np.int64), f"{name}_s"),
            ]
            steps = [
                helper.make_node(
                    "AveragePool",
                    ["input"],
                    [f"{name}_1"],
                    kernel_shape=[stride, stride],
                    strides=[stride, stride],
                ),
                helper.make_node("Conv", [f"{name}_1", f"{name}_w", f"{name}_b"], [f"{name}_2"]),
                helper.make_node("Transpose", [f"{name}_2"], [f"{name}_3"], perm=[0, 2, 3, 1]),
            ]
            last = f"{name}_3"
            if kind == "score":
                steps.append(helper.make_node("Sigmoid", [last], [f"{name}_4"]))
                last = f"{name}_4"
            steps.append(helper.make_node("Reshape", [last, f"{name}_s"], [name]))
            nodes += steps
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]))
    picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "h", "w"])
    return _model(helper.make_graph(nodes, "detector", [picture], outputs, weights))


def _recogniser() -> onnx.ModelProto:
    weight = np.random.default_rng(0).normal(size=(3 * 14 * 14, 64)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["input"], ["a"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "weight"], ["embedding"]),
    ]
    picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 112, 112])
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 64])
    weights = [numpy_helper.from_array(weight, "weight")]
    return _model(helper.make_graph(nodes, "recogniser", [picture], [output], weights))


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model
