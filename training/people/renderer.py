"""One photo from a `Person` and a `Scene`, drawn with OpenGL through EGL, no window needed.

The same code runs on a software rasteriser and on a GPU. Geometry that a person keeps is
computed once and reused from photo to photo; textures stay where they are drawn.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import moderngl
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from training.people import shaders
from training.people.assets import (
    Binding,
    Environment,
    Mesh,
    assets_path,
    diffuse_texture,
    harmonic_basis,
    load_binding,
    load_environment,
    load_mesh,
    load_texture,
)
from training.people.basis import BODY_VERTICES, Basis, load_basis
from training.people.camera import take
from training.people.glasses import glasses_parts
from training.people.person import Person, streak_colour
from training.people.scene import GARMENTS, HAIR_WORDS, Scene
from training.people.skin import (
    SkinMap,
    fur_coat,
    load_linear,
    paint_skin,
    skin_detail,
    skin_map,
    texture_file,
    to_linear,
)
from training.people.styles import apply_style

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int32]
NEAR_FAR = 1.0, 60.0  # of the camera, dm
SRGB8_ALPHA8 = 0x8C43
SAMPLE_ALPHA_TO_COVERAGE = 0x809E
EYEBALLS = {"Left": 14598, "Right": 14670}  # first of 72 helper vertices each
LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
SCALP_FUR = {"buzz": 0.05, "crop": 0.2, "wreath": 0.1}  # usual length, dm
PRINTED = ("t-shirt", "shirt")


@dataclass(frozen=True)
class Photo:
    """What was drawn, and what is true of it.

    Attributes:
        image: (size, size, 3) uint8 RGB.
        landmarks: (5, 2) x, y in pixels: left-image eye, right-image eye, nose tip,
            left-image mouth corner, right-image mouth corner.
        face_box: left, top, right, bottom in pixels; forehead to chin, cheek to cheek.
        visible: whether all five landmarks lie inside and the face is turned to the camera.
    """

    image: NDArray[np.uint8]
    landmarks: FloatArray
    face_box: tuple[float, float, float, float]
    visible: bool


class Fitting:
    """A mesh hung on the base mesh: positions for any body, skinning weights, triangles."""

    def __init__(self, basis: Basis, binding: Binding, mesh: Mesh, lowest: float = -1e9) -> None:
        """Bind once; triangles that hang on vertices left out of the basis are dropped."""
        table = basis.lookup()
        local = table[binding.vertices]
        known = (local >= 0).all(1)
        self.vertices = np.maximum(local, 0)
        self.weights = binding.weights[..., None]
        self.offsets = binding.offsets
        self.scales = [(table[a], table[b], d) for a, b, d in binding.scales]
        self.deleted = table[binding.deleted] if len(binding.deleted) else binding.deleted
        joints = len(basis.template) - len(basis.vertex_ids)
        base = basis.template[: len(basis.template) - joints]
        heights = base[self.vertices][..., 1].mean(1)
        good = (known & (heights > lowest))[mesh.corner_vertices]
        triangles = mesh.triangles[good[mesh.triangles].all(1)]
        used, inverse = np.unique(triangles, return_inverse=True)
        self.triangles = inverse.reshape(-1, 3).astype(np.int32)
        self.corner_vertices = mesh.corner_vertices[used]
        self.uvs = mesh.corner_uvs[used]
        skinning = (basis.weights[self.vertices] * self.weights).sum(1)
        self.skinning = np.clip(skinning, 0, 1).astype(np.float32)[self.corner_vertices]
        vertex_triangles = self.corner_vertices[self.triangles]
        self.normals = NormalSolver(vertex_triangles, len(binding.vertices))

    def fit(self, body: FloatArray) -> FloatArray:
        """Positions of the mesh's vertices on this body, (n, 3)."""
        scale = np.ones(3, np.float32)
        for axis, (a, b, distance) in enumerate(self.scales):
            if distance:
                scale[axis] = abs(body[a, axis] - body[b, axis]) / distance
        placed = (body[self.vertices] * self.weights).sum(1) + self.offsets * scale
        return np.asarray(placed, np.float32)


class NormalSolver:
    """Smooth normals by one sparse product."""

    def __init__(self, triangles: IntArray, count: int) -> None:
        """Remember which triangles touch which vertex."""
        self.triangles = triangles
        rows = triangles.T.reshape(-1)
        columns = np.tile(np.arange(len(triangles)), 3)
        ones = np.ones(len(rows), np.float32)
        self.gather = sparse.csr_matrix((ones, (rows, columns)), (count, len(triangles)))

    def __call__(self, positions: FloatArray) -> FloatArray:
        """Unit normals, (n, 3)."""
        a, b, c = (positions[self.triangles[:, i]] for i in range(3))
        normals = self.gather @ np.cross(b - a, c - a)
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        return np.asarray(normals / np.maximum(length, 1e-12), np.float32)


@dataclass
class Part:
    """Something to draw: buffers on the device and the program that shades it."""

    arrays: dict[str, Any]
    dynamic: Any
    static: Any
    index: Any
    count: int


class Renderer:
    """Draws people; keeps textures, bindings and the current person's geometry."""

    def __init__(
        self,
        assets_dir: Path | None = None,
        size: int = 128,
        basis: Basis | None = None,
        samples: int = 4,
        supersample: int = 2,
    ) -> None:
        """Open the drawing context.

        Args:
            assets_dir: the people assets; `assets_path()` where left out.
            size: the usual size of a picture; larger ones get finer skin.
            basis: shapes; the cached ones where left out.
            samples: multisampling of edges and hair.
            supersample: pictures are drawn this many times larger.
        """
        self.assets = assets_dir or assets_path()
        self.basis = basis or load_basis()
        self.skin_size = 512 if size <= 192 else 1024
        self.shadow_size = 320 if size <= 192 else 1024
        self.most_layers = 5 if size <= 192 else 10  # of fur: as many as can be told apart
        self.samples = samples
        self.supersample = supersample
        self.context: Any = moderngl.create_context(standalone=True, backend="egl")  # type: ignore[arg-type]
        self.context.gc_mode = "auto"
        self._programs: dict[str, Any] = {
            name: self.context.program(vertex_shader=shaders.VERTEX, fragment_shader=fragment)
            for name, fragment in {
                "skin": shaders.SKIN, "eye": shaders.EYE, "hair": shaders.HAIR,
                "brow": shaders.BROW, "cloth": shaders.CLOTH, "teeth": shaders.TEETH,
                "frame": shaders.FRAME, "shadow": shaders.SHADOW_FRAGMENT,
            }.items()
        }  # fmt: skip
        self._programs["fur"] = self.context.program(
            vertex_shader=shaders.FUR_VERTEX, fragment_shader=shaders.FUR
        )
        self._noise = self._upload_plain(noise_tile(256))
        self._background: Any = self.context.program(
            vertex_shader=shaders.QUAD_VERTEX, fragment_shader=shaders.BACKGROUND_FRAGMENT
        )
        quad = self.context.buffer(np.array([-1, -1, 3, -1, -1, 3], np.float32).tobytes())
        self._quad = self.context.vertex_array(self._background, [(quad, "2f", "in_position")])
        self._shadow = self.context.depth_texture((self.shadow_size, self.shadow_size))
        self._shadow.compare_func = ""
        self._shadow.filter = (moderngl.NEAREST, moderngl.NEAREST)
        self._shadow_target = self.context.framebuffer(depth_attachment=self._shadow)
        self._targets: dict[int, tuple[Any, Any]] = {}
        self._textures: dict[str, tuple[Any, float]] = {}
        self._fittings: dict[str, Fitting] = {}
        self._places: dict[str, tuple[Environment, Any, FloatArray]] = {}
        self._details: dict[Path, FloatArray] = {}
        self._parts: OrderedDict[str, Part] = OrderedDict()
        self._person: Person | None = None
        self._skin_texture: Any = None
        self._skin_key: tuple[Any, ...] = ()
        self._prepare_body()
        self._openness = self._measure_openness()

    # ------------------------------------------------------------------ what never changes

    def _prepare_body(self) -> None:
        basis = self.basis
        count = len(basis.vertex_ids)
        self._vertex_count = count
        self._skin_normals = NormalSolver(basis.corner_vertices[basis.triangles], count)
        self._landmarks = landmark_vertices(basis)
        self._skin_weights = basis.weights[basis.corner_vertices]

    def _measure_openness(self) -> FloatArray:
        """How much of its sky each vertex sees, from depth pictures taken all around."""
        basis, count = self.basis, self._vertex_count
        points = basis.template[:count]
        normals = self._skin_normals(points)
        part = self._part(
            "openness", "skin", basis.corner_uvs, np.zeros_like(self._skin_weights), basis.triangles
        )
        _write(part, points, normals, basis.corner_vertices)
        program = self._programs["shadow"]
        identity = np.eye(4, dtype=np.float32)
        program["bones"].write(_columns(np.stack([identity] * 4)))
        program["body"].write(_columns(identity))
        program["cutoff"].value = 0.0
        seen, possible = np.zeros(count), np.zeros(count)
        for direction in sphere(72):
            light = light_camera(np.array([0, 7.0, 0.6], np.float32), direction, 1.9)
            self._shadow_target.use()
            self._shadow_target.clear(depth=1.0)
            self.context.enable_only(moderngl.DEPTH_TEST)
            program["camera"].write(_columns(light))
            part.arrays["shadow"].render()
            depth = np.frombuffer(self._shadow.read(), np.float32)
            depth = depth.reshape(self.shadow_size, self.shadow_size)
            clip = (transform(light, points) + 1) / 2
            cells = np.clip((clip[:, :2] * self.shadow_size).astype(int), 0, self.shadow_size - 1)
            clear = clip[:, 2] - 0.012 <= depth[cells[:, 1], cells[:, 0]]
            weight = np.maximum(normals @ direction, 0)
            seen += weight * clear
            possible += weight
        self._parts.clear()
        return np.asarray(np.clip(seen / np.maximum(possible, 1e-6) * 1.1, 0.12, 1), np.float32)

    @cached_property
    def _regions(self) -> SkinMap:
        picture = "young_lightskinned_male_diffuse.png"
        texture = load_linear(self.assets / "skins" / "textures" / picture, self.skin_size)
        return skin_map(self.basis.position_map, self.skin_size, texture)

    def _fitting(self, folder: str, name: str) -> Fitting:
        key = f"{folder}/{name}"
        if key not in self._fittings:
            file = self.assets / folder / f"{name}.mhclo"
            binding = load_binding(file)
            mesh = load_mesh(file.parent / binding.mesh_file)
            lowest = 3.2 if folder.startswith("clothes") else -1e9
            self._fittings[key] = Fitting(self.basis, binding, mesh, lowest)
        return self._fittings[key]

    def _texture(self, path: Path, size: int | None = None) -> tuple[Any, float]:
        """A texture on the device and the mean luminance of its opaque part."""
        key = f"{path}|{size}"
        if key not in self._textures:
            picture = load_texture(path, size)
            solid = picture[..., 3] > 120
            linear = to_linear(picture[..., :3])
            mean = float((linear[solid] @ LUMINANCE).mean()) if solid.any() else 0.5
            bled = picture.copy()
            if not solid.all() and solid.any():
                bled[~solid, :3] = picture[solid][:, :3].mean(0).astype(np.uint8)
            self._textures[key] = (self._upload(bled), mean)
        return self._textures[key]

    def _upload(self, picture: NDArray[np.uint8]) -> Any:
        height, width = picture.shape[:2]
        if picture.shape[2] == 3:
            opaque = np.full((height, width, 1), 255, np.uint8)
            picture = np.concatenate([picture, opaque], 2)
        data = np.ascontiguousarray(picture[::-1]).tobytes()
        texture = self.context.texture((width, height), 4, data, internal_format=SRGB8_ALPHA8)
        texture.build_mipmaps()
        texture.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
        return texture

    def _upload_plain(self, picture: NDArray[np.uint8]) -> Any:
        """A texture whose numbers are not colours."""
        height, width, channels = picture.shape
        data = np.ascontiguousarray(picture[::-1]).tobytes()
        texture = self.context.texture((width, height), channels, data, alignment=1)
        texture.build_mipmaps()
        texture.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
        return texture

    def _place(self, name: str) -> tuple[Environment, Any, FloatArray]:
        if name not in self._places:
            light = load_environment(self.assets / "environments" / f"{name}.exr")
            height, width = light.radiance.shape[:2]
            data = np.ascontiguousarray(light.radiance[::-1].astype(np.float16)).tobytes()
            texture = self.context.texture((width, height), 3, data, dtype="f2")
            texture.build_mipmaps()
            texture.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
            texture.repeat_y = False
            small = light.radiance.reshape(height // 8, 8, width // 8, 8, 3).mean((1, 3))
            self._places[name] = (light, texture, small)
        return self._places[name]

    # ------------------------------------------------------------------ what a person keeps

    def _meet(self, person: Person) -> None:
        if self._person == person:
            return
        self._person = person
        self._parts.clear()
        self._rest = self.basis.shape(dict(person.phenotype), dict(person.face_shapes))
        head = self._rest[self._landmarks.middle]
        self._rest -= head  # the point between the eyes becomes the origin
        self._skin_key = ()
        self._coats: dict[str, NDArray[np.uint8]] = {}
        self._coat_textures: dict[str, Any] = {}

    def _skin_picture(self, person: Person, scene: Scene) -> Any:
        key = (person.seed, scene.hair_rgb)
        if self._skin_key != key:
            file = texture_file(self.assets, person)
            if file not in self._details:
                texture = load_linear(file, self.skin_size)
                self._details[file] = skin_detail(texture, self._regions)
            picture = paint_skin(person, self._regions, self._details[file], scene.hair_rgb)
            self._skin_texture = self._upload(picture)
            self._skin_key = key
        return self._skin_texture

    def _part(
        self,
        key: str,
        program: str,
        uvs: FloatArray,
        weights: FloatArray,
        triangles: IntArray,
        opens: FloatArray | None = None,
    ) -> Part:
        """Buffers of one part; positions and normals are written later."""
        if key not in self._parts:
            opens = np.ones(len(uvs), np.float32) if opens is None else opens
            opens = opens.reshape(-1, 1)
            dynamic = self.context.buffer(reserve=len(uvs) * 24)
            static = self.context.buffer(
                np.concatenate([uvs, weights, opens], 1).astype(np.float32).tobytes()
            )
            index = self.context.buffer(np.ascontiguousarray(triangles, np.int32).tobytes())
            arrays = {}
            for name in (program, "shadow"):
                arrays[name] = self._vertex_array(name, dynamic, static, index)
            self._parts[key] = Part(arrays, dynamic, static, index, triangles.size)
        return self._parts[key]

    def _vertex_array(self, program: str, dynamic: Any, static: Any, index: Any) -> Any:
        shader = self._programs[program]
        attributes = {name for name in shader if name.startswith("in_")}
        first = [("in_position", "3f"), ("in_normal", "3f")]
        second = [("in_uv", "2f"), ("in_weights", "4f"), ("in_open", "1f")]
        content = []
        for buffer, entries in ((dynamic, first), (static, second)):
            layout = " ".join(f if n in attributes else f"{int(f[0]) * 4}x" for n, f in entries)
            names = [n for n, _ in entries if n in attributes]
            if names:
                content.append((buffer, layout, *names))
        return self.context.vertex_array(shader, content, index)

    def _hang(self, key: str, program: str, fitting: Fitting, body: FloatArray, grow: float = 0.0,
              renew: bool = False) -> Part:  # fmt: skip
        """A fitted part; refitted only when new or when the expression moves it."""
        fresh = key not in self._parts
        part = self._part(key, program, fitting.uvs, fitting.skinning, fitting.triangles)
        if fresh or renew:
            positions = fitting.fit(body)
            normals = fitting.normals(positions)
            if grow:
                positions = positions + grow * normals
            _write(part, positions, normals, fitting.corner_vertices)
        return part

    # ------------------------------------------------------------------ one photo

    def render(self, person: Person, scene: Scene, size: int = 128) -> NDArray[np.uint8]:
        """Draw one photo.

        Args:
            person: who.
            scene: how.
            size: pixels per side.

        Returns:
            (size, size, 3) uint8 RGB.
        """
        return self.photograph(person, scene, size).image

    def photograph(self, person: Person, scene: Scene, size: int = 128) -> Photo:
        """Draw one photo and say where the face is in it."""
        self._meet(person)
        body = self._rest + self.basis.act(_known(self.basis, scene.actions))
        view = self._aim(body, scene, size)
        light, place, small = self._place(scene.place)
        self._measure_light(person, scene, view, light, small)
        draws = self._assemble(person, scene, body, view)
        self._draw_shadow(draws, view)
        target, resolved = self._target(size * self.supersample)
        target.use()
        self.context.clear(0.0, 0.0, 0.0, 1.0, depth=1.0)
        self._draw_background(scene, view, place)
        self._draw_parts(draws, scene, view, place)
        self.context.copy_framebuffer(resolved, target)
        image, depth = self._read(resolved, size), self._read_depth(resolved, size, view)
        noise = np.random.default_rng([person.seed, scene.seed, 3])
        image = take(image, depth, scene.lens, noise)
        image = apply_style(image, scene.style, scene.grain, scene.vignette, noise)
        return Photo(image, *self._locate(body, view, size))

    def _aim(self, body: FloatArray, scene: Scene, size: int) -> View:
        """Pose the body and place the camera so that the face has the wanted size and place."""
        joints = body[self._vertex_count :]
        yaw, pitch, roll = scene.head
        half = rotation(0.45 * yaw, 0.45 * pitch, 0.45 * roll)
        neck = about(joints[0], half)
        head = neck @ about(joints[1], rotation(0.55 * yaw, 0.55 * pitch, 0.55 * roll))
        left = about(joints[2], _roll(-36.0))
        right = about(joints[3], _roll(36.0))
        turn = np.eye(4, dtype=np.float32)
        turn[:3, :3] = rotation(scene.body_yaw, 0, 0)
        bones = np.stack([head, neck, left, right])
        face = turn @ head
        centre_rest = 0.55 * body[self._landmarks.middle] + 0.45 * body[self._landmarks.mouth]
        centre = transform(face, centre_rest[None])[0]
        width = float(np.ptp(body[self._landmarks.width, 0]))
        focal = scene.face_share * scene.distance / width * 2  # in half pictures
        towards = rotation(0, scene.camera_pitch, 0)
        eye = centre + towards @ np.array([0, 0, scene.distance], np.float32)
        look = np.eye(4, dtype=np.float32)
        look[:3, :3] = towards.T
        look[:3, 3] = -towards.T @ eye
        near, far = NEAR_FAR
        lens = np.zeros((4, 4), np.float32)
        lens[0, 0] = lens[1, 1] = focal
        lens[0, 2], lens[1, 2] = -2 * scene.offset[0], -2 * (scene.offset[1] + self._lift(scene))
        lens[2, 2], lens[2, 3] = -(far + near) / (far - near), -2 * far * near / (far - near)
        lens[3, 2] = -1
        return View(bones, turn, lens @ look, eye, face, centre, towards, focal)

    @staticmethod
    def _lift(scene: Scene) -> float:
        """Wider framings put the face above the middle."""
        return {"close-up": -0.01, "portrait": 0.01, "head and shoulders": 0.07,
                "upper body": 0.14}[scene.framing]  # fmt: skip

    def _measure_light(
        self, person: Person, scene: Scene, view: View, light: Environment, small: FloatArray
    ) -> None:
        """Turn the place, then set exposure and white balance on the face as a camera does."""
        main = light.harmonics[[3, 1, 2]].mean(1) * 1.0233 + light.key_direction * float(
            light.key_colour.mean()
        )
        turn = np.radians(scene.light_azimuth) - np.arctan2(main[0], main[2])
        view.place_turn = rotation(float(-np.degrees(turn)), 0, 0)  # world to place
        view.key_direction = view.place_turn.T @ light.key_direction
        grey = float(light.key_colour @ LUMINANCE)
        view.key = 0.4 * light.key_colour + 0.6 * grey * np.ones(3, np.float32)
        normals = np.array([[0, 0, 1], [0.6, 0, 0.8], [-0.6, 0, 0.8], [0, 0.5, 0.87],
                            [0, -0.4, 0.9]], np.float32)  # fmt: skip
        world = normals @ view.face[:3, :3].T
        soft = np.maximum(harmonic_basis(world @ view.place_turn.T) @ light.harmonics, 0.0)
        facing = np.clip((world @ view.key_direction + 0.15) / 1.15, 0, 1)
        direct = view.key * facing[:, None] * 0.85
        ambient = float(soft.mean(0) @ LUMINANCE)
        self._add_lamp(scene, view, level=float((soft + direct).mean(0) @ LUMINANCE))
        direct = view.key * np.clip((world @ view.key_direction + 0.15) / 1.15, 0, 1)[:, None]
        direct *= 0.85
        soft = soft * view.dimmed
        # a strong lamp is softened, as a photographer would: no cheek in pure black
        strongest = float((direct @ LUMINANCE).max())
        if strongest > 3.0 * ambient:
            softened = 3.0 * ambient / strongest
            view.key, direct = view.key * softened, direct * softened
        seen = (soft + direct).mean(0)
        level = float(seen @ LUMINANCE)
        view.fill = (scene.fill * level * seen / max(level, 1e-6)).astype(np.float32)
        seen = seen + view.fill * 0.9
        albedo = np.array(person.skin_rgb, np.float32)
        brightness = float(albedo @ LUMINANCE)
        wanted = 0.235 * (brightness / 0.5) ** 0.42 * 2.0**scene.exposure
        exposure = wanted / max(float((seen * albedo) @ LUMINANCE) / np.pi, 1e-6)
        tinted = soft.mean(0) + 0.4 * direct.mean(0) + view.fill  # lamps often miss the face
        white = float(tinted @ LUMINANCE) / np.maximum(tinted, 1e-6)
        balance = white**scene.white_balance
        view.gain = (exposure * balance).astype(np.float32)
        view.background_gain = view.gain * self._calm(scene, view, small)
        view.harmonics = light.harmonics * view.dimmed

    @staticmethod
    def _add_lamp(scene: Scene, view: View, level: float) -> None:
        """Bring a window, a rim light or a flash; `level` is what the place gives the face."""
        side, strength = scene.lamp_side, scene.lamp_strength
        view.rim = np.zeros(3, np.float32)
        view.rim_direction = np.array([0, 0, -1], np.float32)
        if scene.lamp == "window":
            towards = rotation(side * (35 + 40 * abs(np.sin(scene.seed + 1.0))), -22, 0)
            view.key_direction = (towards @ np.array([0, 0, 1])).astype(np.float32)
            view.key = level * 1.7 * strength * np.array([0.98, 1.0, 1.04], np.float32)
            view.dimmed = 0.75
        elif scene.lamp == "flash":
            view.key_direction = np.array([0.06 * side, 0.12, 0.99], np.float32)
            view.key = level * 2.0 * strength * np.ones(3, np.float32)
            view.dimmed = 0.55
        elif scene.lamp == "rim":
            towards = rotation(side * (125 + 25 * abs(np.sin(scene.seed + 2.0))), -25, 0)
            view.rim_direction = (towards @ np.array([0, 0, 1])).astype(np.float32)
            colour = np.array([1.08, 1.0, 0.86], np.float32)
            view.rim = level * 3.0 * strength * colour

    @staticmethod
    def _calm(scene: Scene, view: View, small: FloatArray) -> float:
        """Keep what is seen of the place between dim and bright, whatever the face needs."""
        height, width = small.shape[:2]
        towards = view.place_turn @ view.towards @ np.array([0, 0, -1], np.float32)
        column = int((np.arctan2(towards[0], towards[2]) / (2 * np.pi) + 0.5) * width)
        columns = np.arange(column - width // 8, column + width // 8) % width
        seen = small[height // 4 : 3 * height // 4, columns] * view.gain
        level = float(np.clip(seen @ LUMINANCE, 0, 4).mean())
        low, high = (0.015, 0.05) if scene.place == "night" else (0.1, 0.42)
        return float(np.clip(level, low, high) / max(level, 1e-6))

    def _assemble(self, person: Person, scene: Scene, body: FloatArray, view: View) -> list[Draw]:
        """List what to draw, in order; see-through things last."""
        basis = self.basis
        rest = self._rest
        garment = self._fitting(f"clothes/{scene.garment}", scene.garment)
        skin_key = f"skin|{scene.garment}"
        if skin_key not in self._parts:
            triangles = self._uncovered(garment)
            self._part(
                skin_key,
                "skin",
                basis.corner_uvs,
                self._skin_weights,
                triangles,
                self._openness[basis.corner_vertices],
            )
        skin = self._parts[skin_key]
        count = self._vertex_count
        normals = self._skin_normals(body[:count])
        _write(skin, body[:count], normals, basis.corner_vertices)
        picture = self._skin_picture(person, scene)
        gloss = 0.75 * scene.shine
        draws = [Draw(skin, "skin", picture, {"options": (0.28, gloss, 0, 0)})]
        draws += self._eyes(person, scene, body, view)
        if dict(scene.actions).get("jawOpen", 0.0) > 0.05:  # else they glint between closed lips
            draws.append(self._teeth(body))
        cloth = self._hang(f"cloth|{scene.garment}", "cloth", garment, rest, grow=0.03)
        draws.append(Draw(cloth, "cloth", self._garment_texture(scene.garment),
                          self._worn(scene, rest)))  # fmt: skip
        draws += self._hat(scene, rest)
        draws += self._fur(person, scene, body, skin)
        draws += self._hair(person, scene, rest)
        draws += self._brows(person, scene, body)
        draws += self._glasses(person, scene, rest)
        return draws

    def _uncovered(self, garment: Fitting) -> IntArray:
        hidden = np.zeros(self._vertex_count + 1, bool)
        hidden[garment.deleted] = True
        hidden[-1] = False
        corners = hidden[self.basis.corner_vertices[self.basis.triangles]]
        return self.basis.triangles[~corners.all(1)]

    def _worn(self, scene: Scene, rest: FloatArray) -> dict[str, Any]:
        """Colours and pattern of a garment in this photo."""
        contrast = 0.75 if scene.clothing_colour != "white" else 0.5
        repeats, where, threshold = scene.pattern
        if GARMENTS[scene.garment] not in PRINTED or (repeats < 0) != (
            GARMENTS[scene.garment] == "t-shirt"
        ):
            repeats = 0.0
        shiny = 0.5 if GARMENTS[scene.garment] in ("jacket", "suit") else 0.15
        return {
            "tint": scene.clothing_rgb,
            "second": scene.second_rgb,
            "options": (0.0, contrast, 0.0, shiny),
            "pattern": (repeats, where, threshold, 0.0),
            "pattern_rgb": scene.pattern_rgb,
        }

    def _garment_texture(self, name: str) -> Any:
        """Light and shade of the cloth without its colours; see `cloth_texture`."""
        key = f"cloth|{name}"
        if key not in self._textures:
            folder = self.assets / "clothes" / name
            picture = load_texture(diffuse_texture(folder / f"{name}.mhmat"))
            fitting = self._fitting(f"clothes/{name}", name)
            prepared = cloth_texture(picture, fitting.uvs[fitting.triangles].mean(1), name)
            texture = self._upload_plain(prepared)
            self._textures[key] = (texture, 1.0)
        return self._textures[key][0]

    def _eyes(self, person: Person, scene: Scene, body: FloatArray, view: View) -> list[Draw]:
        fitting = self._fitting("eyes/high-poly", "high-poly")
        placed = fitting.fit(body)
        path = self.assets / "eyes" / "materials" / f"{person.iris}_eye.png"
        texture, _ = self._texture(path, 512)
        normals = fitting.normals(placed)
        draws = []
        for side, sign in (("left", 1), ("right", -1)):
            mine = placed[:, 0] * sign > 0
            ball = placed[mine]
            centre_rest = 0.5 * (ball.min(0) + ball.max(0))
            key = f"eye|{side}"
            chosen = fitting.triangles[mine[fitting.corner_vertices[fitting.triangles]].all(1)]
            part = self._part(key, "eye", fitting.uvs, fitting.skinning, chosen)
            _write(part, placed, normals, fitting.corner_vertices)
            centre = transform(view.face, centre_rest[None])[0]
            gaze, right, up = self._look(scene, view, centre)
            draws.append(Draw(part, "eye", texture, {
                "centre": centre, "gaze": gaze, "gaze_right": right, "gaze_up": up,
                "options": (0.48, 0.7056, 1 - 0.293, 0.1132),
                "pupil": 0.24 + 0.16 * ((scene.seed * 7 + person.seed) % 10) / 10,
                "catch_light": self._catch_light(scene, view),
                "tint": (0.8, 0.8, 0.8) if person.iris in ("ice", "grey", "lightblue") else
                        (1.0, 1.0, 1.0)}))  # fmt: skip
        return draws

    @staticmethod
    def _catch_light(scene: Scene, view: View) -> tuple[float, float, float, float]:
        """Direction of what the eyes mirror, and whether it is a window."""
        towards = np.asarray(view.key_direction, np.float32)
        if towards[2] < 0.3 or towards[1] < 0.05:  # the lamp is behind: something else is seen
            towards = np.array([0.35 * scene.lamp_side, 0.42, 0.84], np.float32)
        towards = towards / np.linalg.norm(towards)
        x, y, z = (float(v) for v in towards)
        return (x, y, z, scene.pane)

    @staticmethod
    def _look(
        scene: Scene, view: View, centre: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Axes of an eye that looks at the camera, give or take the scene's gaze."""
        straight = view.face[:3, :3] @ np.array([0, 0, 1], np.float32)
        camera = view.eye - centre
        camera = camera / np.linalg.norm(camera)
        gaze = camera @ rotation(scene.gaze[0], -scene.gaze[1], 0).T
        cosine = float(gaze @ straight)
        limit = np.cos(np.radians(28))
        if cosine < limit:  # an eye turns only so far in its head
            sideways = gaze - cosine * straight
            sideways /= max(float(np.linalg.norm(sideways)), 1e-6)
            gaze = limit * straight + np.sin(np.radians(28)) * sideways
        right = np.cross(view.face[:3, 1], gaze)
        right /= np.linalg.norm(right)
        return gaze, right, np.cross(gaze, right)

    def _teeth(self, body: FloatArray) -> Draw:
        fitting = self._fitting("teeth/teeth_base", "teeth_base")
        part = self._hang("teeth", "teeth", fitting, body, renew=True)
        texture, _ = self._texture(self.assets / "teeth" / "materials" / "teeth.png", 512)
        front = float(body[self._landmarks.mouth, 2])
        return Draw(part, "teeth", texture, {"tint": (0.95, 0.93, 0.88), "options":
                                             (0.12, 0.6, front - 0.6, 0.5)})  # fmt: skip

    def _hat(self, scene: Scene, rest: FloatArray) -> list[Draw]:
        if scene.hat == "none":
            return []
        fitting = self._fitting("clothes/fedora01", "fedora")
        part = self._hang("hat", "cloth", fitting, rest, grow=0.04)
        folder = self.assets / "clothes" / "fedora01" / "materials"
        if "cloth|hat" not in self._textures:
            picture = load_texture(folder / "fedora_texture_grey.png", 512)
            prepared = cloth_texture(picture, fitting.uvs[fitting.triangles].mean(1), "hat")
            texture = self._upload_plain(prepared)
            self._textures["cloth|hat"] = (texture, 1.0)
        tint = (0.045, 0.04, 0.038) if scene.seed % 2 else (0.14, 0.10, 0.07)
        return [Draw(part, "cloth", self._textures["cloth|hat"][0], {
            "tint": tint, "second": (0.02, 0.018, 0.017), "options": (0.0, 0.6, 0.0, 0.1),
            "pattern": (0.0, 0.0, 0.0, 0.0), "pattern_rgb": tint})]  # fmt: skip

    def _hat_plane(self, scene: Scene, rest: FloatArray) -> tuple[float, float, float, float]:
        """Hair above this plane is under the hat."""
        if scene.hat == "none":
            return (0.0, 0.0, 0.0, 1e9)
        middle = rest[self._vertex_count + 1]  # the head's joint
        hat = self._fitting("clothes/fedora01", "fedora").fit(rest)
        crown = hat[np.hypot(hat[:, 0], hat[:, 2] - middle[2]) < 0.95]
        low = float(np.quantile(crown[:, 1], 0.06)) if len(crown) else float(hat[:, 1].min())
        return (0.0, 1.0, 0.18, low + 0.03 + 0.18 * float(middle[2]))

    def _fur(self, person: Person, scene: Scene, body: FloatArray, skin: Part) -> list[Draw]:
        """Beards and very short hair: many thin layers over the skin, each with fewer strands."""
        fineness = 9.0 * self.most_layers  # layers a decimetre
        draws = []
        if person.beard_length > 0:
            draws.append(self._grown("beard", person, scene, skin, {
                "tint": np.array(person.hair_rgb) * 0.9 + 0.006,
                "streak": streak_colour(person, person.hair_colour, person.hair_rgb),
                "options": (0.5, 0.6, 8.0, 0.35) if person.beard == "stubble" else
                           (0.5, 1.0, 8.0, 0.2),
                "shells": (person.beard_length * fineness, person.beard_length, 0.55, -0.1),
            }))  # fmt: skip
        if person.hair_style in SCALP_FUR:
            length = SCALP_FUR[person.hair_style] * (0.6 + 0.8 * person.hair_length)
            draws.append(self._grown("scalp", person, scene, skin, {
                "tint": np.array(scene.hair_rgb) + 0.006,
                "streak": streak_colour(person, scene.hair_colour, scene.hair_rgb),
                "options": (0.5, 1.0, 8.0, 0.2),
                "shells": (1 + 0.7 * length * fineness, length, 0.25, 0.3),
            }))  # fmt: skip
        return draws

    def _grown(
        self, kind: str, person: Person, scene: Scene, skin: Part, values: dict[str, Any]
    ) -> Draw:
        """One coat of fur; its number of layers becomes whole."""
        wanted, *rest = values["shells"]
        layers = int(np.clip(wanted, 1, self.most_layers))
        values |= {"shells": (layers, *rest), "hat_plane": self._hat_plane(scene, self._rest)}
        part = self._fur_part(kind, scene.garment, person, skin)
        picture = self._fur_texture(kind, person)
        return Draw(part, "fur", picture, values, casts=False, layers=layers)

    def _fur_part(self, kind: str, garment: str, person: Person, skin: Part) -> Part:
        """The skin's own buffers with the triangles on which something grows."""
        key = f"fur|{kind}|{garment}"
        if key not in self._parts:
            coat = self._coat(kind, person)[..., 0]
            uvs, size = self.basis.corner_uvs, coat.shape[0]
            rows = np.clip(((1 - uvs[:, 1]) * size).astype(int), 0, size - 1)
            columns = np.clip((uvs[:, 0] * size).astype(int), 0, size - 1)
            wide = ndimage.maximum_filter(coat, max(3, size // 64))
            triangles = self.basis.triangles
            triangles = triangles[(wide[rows, columns] > 5)[triangles].any(1)]
            index = self.context.buffer(np.ascontiguousarray(triangles, np.int32).tobytes())
            array = self._vertex_array("fur", skin.dynamic, skin.static, index)
            self._parts[key] = Part(
                {"fur": array}, skin.dynamic, skin.static, index, triangles.size
            )
        return self._parts[key]

    def _coat(self, kind: str, person: Person) -> NDArray[np.uint8]:
        if kind not in self._coats:
            self._coats[kind] = fur_coat(person, self._regions, kind)
        return self._coats[kind]

    def _fur_texture(self, kind: str, person: Person) -> Any:
        if kind not in self._coat_textures:
            coat = self._coat(kind, person)
            texture = self._upload_plain(coat)
            self._coat_textures[kind] = texture
        return self._coat_textures[kind]

    def _hair(self, person: Person, scene: Scene, rest: FloatArray) -> list[Draw]:
        if HAIR_WORDS[person.hair_style] in ("bald", "shaved") or person.hair_style in SCALP_FUR:
            return []
        style = person.hair_style
        fitting = self._fitting(f"hair/{style}", style)
        middle = rest[self._vertex_count + 1]  # the head's joint
        fresh = "hair" not in self._parts
        part = self._part("hair", "hair", fitting.uvs, fitting.skinning, self._hair_triangles(
            fitting, person.hair_mirrored))  # fmt: skip
        if fresh:
            positions = groom(fitting.fit(rest), middle, person)
            normals = fitting.normals(positions) * (-1.0 if person.hair_mirrored else 1.0)
            _write(part, positions, normals, fitting.corner_vertices)
        folder = self.assets / "hair" / style
        texture, mean = self._texture(diffuse_texture(folder / f"{style}.mhmat"), 512)
        chin = float(rest[self._landmarks.outline, 1].min())
        lowest = -1e9
        if style == "long01":  # worn between chin and its full length
            lowest = chin + 0.3 - 3.2 * person.hair_length if person.hair_length < 0.85 else -1e9
        streak = streak_colour(person, scene.hair_colour, scene.hair_rgb)
        brows = 0.32  # above the eyes, which are the origin
        front = float(rest[self._landmarks.outline, 2].min())
        return [Draw(part, "hair", texture, {
            "tint": scene.hair_rgb, "streak": streak, "options": (mean, 0.85, 0, 0),
            "centre": ("head", middle), "hat_plane": self._hat_plane(scene, rest),
            "trim": (lowest, brows, 0.56, front),
        })]  # fmt: skip

    @staticmethod
    def _hair_triangles(fitting: Fitting, mirrored: bool) -> IntArray:
        return fitting.triangles[:, ::-1] if mirrored else fitting.triangles

    def _brows(self, person: Person, scene: Scene, body: FloatArray) -> list[Draw]:
        name = f"eyebrow{person.brow:03d}"
        fitting = self._fitting(f"eyebrows/{name}", name)
        raised = body.copy()
        raised[:, 1] += person.brow_height
        part = self._hang("brow", "brow", fitting, raised, renew=True)
        texture, _ = self._texture(self.assets / "eyebrows" / name / f"{name}.png", 512)
        hair = np.array(person.hair_rgb)
        if person.hair_colour in ("grey", "white"):  # brows keep their colour longer than hair
            hair = 0.4 * hair * np.array([1.0, 0.9, 0.8]) + np.array([0.03, 0.022, 0.017])
        tint = tuple(float(v) for v in np.clip(hair * 0.7 + 0.012, 0.012, 0.32))
        draws = [
            Draw(
                part, "brow", texture, {"tint": tint, "options": (0.3, person.brow_strength, 0, 0)}
            )
        ]
        name = f"eyelashes{person.lash:02d}"
        fitting = self._fitting(f"eyelashes/{name}", name)
        part = self._hang("lash", "brow", fitting, body, renew=True)
        texture, _ = self._texture(self.assets / "eyelashes" / name / f"{name}.png", 512)
        strength = person.lash_strength
        draws.append(
            Draw(
                part,
                "brow",
                texture,
                {"tint": (0.012, 0.01, 0.009), "options": (0.3, strength, 0, 0)},
            )
        )
        return draws

    def _glasses(self, person: Person, scene: Scene, rest: FloatArray) -> list[Draw]:
        if scene.glasses == "none":
            return []
        eyes = self._fitting("eyes/high-poly", "high-poly").fit(rest)
        left = eyes[eyes[:, 0] > 0]
        right = eyes[eyes[:, 0] < 0]
        ears = float(np.ptp(rest[self._landmarks.width, 0]))
        bridge = rest[self._landmarks.bridge]
        parts = glasses_parts(
            scene.glasses,
            left.mean(0),
            right.mean(0),
            float(max(left[:, 2].max(), right[:, 2].max())),
            ears,
            bridge,
        )
        draws = []
        for name, (positions, normals, triangles) in parts.items():
            count = len(positions)
            weights = np.zeros((count, 4), np.float32)
            weights[:, 0] = 1
            uvs = np.zeros((count, 2), np.float32)
            part = self._part(f"{scene.glasses}|{name}", "frame", uvs, weights, triangles)
            part.dynamic.write(np.concatenate([positions, normals], 1).astype("f4").tobytes())
            if name == "frame":
                look = {"tint": scene.glasses_rgb, "options": (1.0, 1.0, 3.0, 0.0)}
            elif scene.glasses == "sunglasses":
                look = {"tint": (0.012, 0.011, 0.010), "options": (0.5, 0.93, 1.0, 0.0)}
            else:
                look = {
                    "tint": (0.5, 0.5, 0.5),
                    "options": (1.6, 0.04, 1.5, 1.0 + 3.0 * abs(float(np.sin(scene.seed + 3.0)))),
                }
            draws.append(
                Draw(part, "frame", None, look, casts=name == "frame", blends=name != "frame")
            )
        return draws

    # ------------------------------------------------------------------ drawing

    def _draw_shadow(self, draws: list[Draw], view: View) -> None:
        view.light = light_camera(view.centre, view.key_direction, 2.2)
        self._shadow_target.use()
        self._shadow_target.clear(depth=1.0)
        self.context.enable_only(moderngl.DEPTH_TEST)
        program = self._programs["shadow"]
        program["bones"].write(_columns(view.bones))
        program["body"].write(_columns(view.body))
        program["camera"].write(_columns(view.light))
        for draw in draws:
            if not draw.casts or draw.program in ("brow", "eye", "teeth", "fur"):
                continue
            solid = draw.program != "hair"
            program["cutoff"].value = 0.0 if solid else 0.35
            if not solid:
                program["trim"].value = self._resolve(draw.values["trim"], view)
            if draw.picture is not None:
                draw.picture.use(0)
            draw.part.arrays["shadow"].render()

    def _target(self, size: int) -> tuple[Any, Any]:
        if size not in self._targets:
            colour = self.context.renderbuffer((size, size), 4, samples=self.samples)
            depth = self.context.depth_renderbuffer((size, size), samples=self.samples)
            drawn = self.context.framebuffer([colour], depth)
            plain = self.context.framebuffer(
                [self.context.renderbuffer((size, size), 4)],
                self.context.depth_texture((size, size)),
            )
            self._targets[size] = (drawn, plain)
        return self._targets[size]

    def _draw_background(self, scene: Scene, view: View, place: Any) -> None:
        self.context.disable(moderngl.DEPTH_TEST)
        program = self._background
        place.use(1)
        program["place"].value = 1
        program["place_turn"].write(_columns(view.place_turn @ view.towards))
        tangent = np.tan(min(np.arctan(1 / view.focal) * scene.background_spread, 1.0))
        program["tangent"].value = (float(tangent), float(tangent))
        program["blur"].value = scene.blur
        program["gain"].value = tuple(map(float, view.background_gain))
        self._quad.render()

    def _draw_parts(self, draws: list[Draw], scene: Scene, view: View, place: Any) -> None:
        context = self.context
        context.enable_only(moderngl.DEPTH_TEST)
        place.use(1)
        self._shadow.use(2)
        self._noise.use(3)
        for draw in draws:
            program = self._programs[draw.program]
            self._set_view(program, view)
            if "softness" in program:
                program["softness"].value = scene.lamp_softness
            for name, value in draw.values.items():
                if name in program:
                    program[name].value = self._resolve(value, view)
            sampler = "coat" if draw.program == "fur" else "picture"
            if draw.picture is not None and sampler in program:
                draw.picture.use(0)
                program[sampler].value = 0
            covers = draw.program in ("hair", "fur")
            if covers:
                context.enable_direct(SAMPLE_ALPHA_TO_COVERAGE)
            if draw.program == "brow" or draw.blends:
                context.enable(moderngl.BLEND)
                context.blend_func = moderngl.SRC_ALPHA, moderngl.ONE_MINUS_SRC_ALPHA
                self._targets_depth(False)
            draw.part.arrays[draw.program].render(instances=draw.layers)
            if covers:
                context.disable_direct(SAMPLE_ALPHA_TO_COVERAGE)
            context.disable(moderngl.BLEND)
            self._targets_depth(True)

    def _targets_depth(self, writes: bool) -> None:
        self.context.fbo.depth_mask = writes

    @staticmethod
    def _resolve(value: Any, view: View) -> Any:
        if isinstance(value, tuple) and value and value[0] == "head":
            value = transform(view.face, np.asarray(value[1])[None])[0]
        if np.ndim(value) == 0:
            return float(value)
        return tuple(float(v) for v in value)

    def _set_view(self, program: Any, view: View) -> None:
        values = {
            "bones": view.bones, "body": view.body, "camera": view.camera, "light": view.light,
            "place_turn": view.place_turn,
        }  # fmt: skip
        for name, matrix in values.items():
            if name in program:
                program[name].write(_columns(matrix))
        vectors = {
            "key_direction": view.key_direction, "key": view.key, "eye": view.eye,
            "fill": view.fill, "gain": view.gain, "harmonics": view.harmonics,
            "rim": view.rim, "rim_direction": view.rim_direction,
        }  # fmt: skip
        for name, vector in vectors.items():
            if name in program:
                program[name].write(np.ascontiguousarray(vector, np.float32).tobytes())
        for name, unit in (("place", 1), ("shadow_map", 2), ("noise", 3)):
            if name in program:
                program[name].value = unit

    def _read(self, target: Any, size: int) -> NDArray[np.uint8]:
        n = self.supersample
        data = np.frombuffer(target.read(components=4, alignment=1), np.uint8)
        large = data.reshape(size * n, size * n, 4)[::-1, :, :3]
        if n == 1:
            return np.ascontiguousarray(large)
        sums = large.reshape(size, n, size, n, 3).astype(np.uint16).sum((1, 3))
        return np.asarray((sums + n * n // 2) // (n * n), np.uint8)

    def _read_depth(self, target: Any, size: int, view: View) -> FloatArray:
        """(size, size) 0 at the face, towards 1 far behind it, below 0 before it."""
        n = self.supersample
        data = np.frombuffer(target.depth_attachment.read(), np.float32)
        buffer = data.reshape(size * n, size * n)[::-1][::n, ::n] * 2 - 1
        near, far = NEAR_FAR
        away = 2 * far * near / (far + near - buffer * (far - near))
        focus = float(np.linalg.norm(view.eye - view.centre)) - 0.1
        depth = 1 - focus / np.maximum(away, near)
        return np.where(np.abs(depth) < 0.04, 0.0, depth)

    def _locate(
        self, body: FloatArray, view: View, size: int
    ) -> tuple[FloatArray, tuple[float, float, float, float], bool]:
        marks = self._landmarks
        points = np.stack([body[group].mean(0) for group in marks.five])
        landmarks = project(view.camera, transform(view.face, points), size)
        outline = project(view.camera, transform(view.face, body[marks.outline]), size)
        low, high = outline.min(0), outline.max(0)
        box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
        inside = bool((landmarks > 0).all() and (landmarks < size).all())
        towards = view.eye - view.centre
        facing = float(view.face[:3, 2] @ towards / np.linalg.norm(towards))
        return landmarks, box, inside and facing > 0.55


@dataclass
class Draw:
    """One part with its texture and the uniforms of its material."""

    part: Part
    program: str
    picture: Any
    values: Mapping[str, Any]
    casts: bool = True
    blends: bool = False
    layers: int = 1


@dataclass
class View:
    """Pose, camera and light of one photo; the light is filled in after metering."""

    bones: FloatArray
    body: FloatArray
    camera: FloatArray
    eye: FloatArray
    face: FloatArray
    centre: FloatArray
    towards: FloatArray
    focal: float
    light: Any = None
    place_turn: Any = None
    key_direction: Any = None
    key: Any = None
    fill: Any = None
    gain: Any = None
    background_gain: Any = None
    harmonics: Any = None
    rim: Any = None
    rim_direction: Any = None
    dimmed: float = 1.0  # share of the place's soft light that is left beside a lamp


@dataclass(frozen=True)
class Landmarks:
    """Numbers of kept vertices that mark a face."""

    middle: int
    mouth: int
    bridge: int
    width: IntArray
    outline: IntArray
    five: tuple[IntArray, ...]


def landmark_vertices(basis: Basis) -> Landmarks:
    """Find the marking vertices on the template, by what moves when the face acts."""
    table = basis.lookup()
    points = basis.template[: len(basis.vertex_ids)]
    body = basis.vertex_ids < BODY_VERTICES
    names = [str(n) for n in basis.action_names]

    def moved(*actions: str) -> FloatArray:
        shapes = [basis.action_shapes[names.index(a), : len(points)] for a in actions]
        return np.asarray(sum(np.linalg.norm(s, axis=1) for s in shapes), np.float32)

    lips = body & (moved("mouthRollUpper", "mouthRollLower") > 0.02)
    rows = np.flatnonzero(lips)
    left = rows[np.argsort(points[rows, 0])[:3]]
    right = rows[np.argsort(-points[rows, 0])[:3]]
    eyes = []
    for side in ("Right", "Left"):  # the person's right eye is on the left of the picture
        first = EYEBALLS[side]
        ball = table[first : first + 72]
        eyes.append(ball[np.argsort(-points[ball, 2])[:24]])
    nose = np.array([table[5054]], np.int32)  # foremost of the midline
    face = body & (points[:, 1] > 6.1) & (points[:, 1] < 7.95) & (points[:, 2] > 0.55)
    face &= np.abs(points[:, 0]) < 0.85
    width = body & (np.abs(points[:, 1] - 7.0) < 0.4) & (np.abs(points[:, 2] - 0.8) < 0.25)
    width &= np.abs(points[:, 0]) < 0.9
    five = (eyes[0], eyes[1], nose, left.astype(np.int32), right.astype(np.int32))
    return Landmarks(
        middle=int(table[133]),
        mouth=int(table[523]),
        bridge=int(table[128]),
        width=np.flatnonzero(width).astype(np.int32),
        outline=np.flatnonzero(face).astype(np.int32),
        five=five,
    )


def groom(points: FloatArray, middle: FloatArray, person: Person) -> FloatArray:
    """Wear a hair mesh in this person's way: parting, volume, waves.

    Args:
        points: (n, 3) the mesh as it was made, dm.
        middle: (3,) the head's joint.
        person: whose hair.
    """
    points = points.copy()
    if person.hair_mirrored:
        points[:, 0] *= -1
    out = points - middle
    above = np.clip((out[:, 1] - 0.6) / 0.8, 0, 1)[:, None]  # roots at the brow stay where they are
    grow = 1 + (person.hair_volume - 1) * (0.35 + 0.65 * above)
    points = middle + out * np.concatenate([grow, 1 + (grow - 1) * above, grow], 1)
    below = np.clip((middle[1] + 0.9 - points[:, 1]) / 1.2, 0, 1)
    phase = person.seed % 7 + 3.0 * np.sign(points[:, 0])
    points[:, 0] += person.hair_wave * below * np.sin(points[:, 1] * 5.5 + phase)
    points[:, 2] += person.hair_wave * below * np.cos(points[:, 1] * 4.7 + phase)
    return np.asarray(points, np.float32)


def cloth_texture(picture: NDArray[np.uint8], centres: FloatArray, name: str) -> NDArray[np.uint8]:
    """Take the colours off a garment: what is left can be dyed without its logo showing.

    Args:
        picture: (h, w, 4) sRGB and alpha.
        centres: (t, 2) texture coordinates of the triangles that are drawn, v up.
        name: of the garment.

    Returns:
        (h, w, 4): luminance over the local one, 128 where it is usual; 255 where another piece of
        cloth is (trim, shirt under a jacket); nothing; alpha.
    """
    height, width = picture.shape[:2]
    linear = to_linear(picture[..., :3])
    light = linear @ LUMINANCE
    columns = np.clip(centres[:, 0] * width, 0, width - 1).astype(int)
    rows = np.clip((1 - centres[:, 1]) * height, 0, height - 1).astype(int)
    usual = np.median(linear[rows, columns], 0)
    chroma = linear / np.maximum(linear.sum(-1, keepdims=True), 1e-4)
    apart = np.abs(chroma - usual / usual.sum()).sum(-1)
    other = np.zeros((height, width), np.float32)
    if "t-shirt" in GARMENTS.get(name, ""):  # orange trim and logo on blue or white
        orange = (chroma[..., 0] > 0.45) & (chroma[..., 2] < 0.25)
        logo = ndimage.binary_dilation(orange, iterations=3)
        fill = ndimage.gaussian_filter(np.where(logo, 0, light), 8)
        share = ndimage.gaussian_filter(np.where(logo, 0.0, 1.0), 8)
        light = np.where(logo, fill / np.maximum(share, 1e-3), light)
        # the ring around the logo is thin and of no colour; folds are wide
        light = ndimage.median_filter(light[::2, ::2], 9).repeat(2, 0).repeat(2, 1)
    elif GARMENTS.get(name) == "suit":  # the shirt is white
        other = np.asarray(light > 6 * max(float(usual @ LUMINANCE), 1e-3), np.float32)
    elif GARMENTS.get(name) == "jacket":  # the shirt is striped in red
        other = np.asarray(apart > 0.18, np.float32)
        other = ndimage.grey_closing(other, 7)
    local = ndimage.gaussian_filter(light, width / 24)
    typical = float(np.median(light[rows, columns]))
    base = np.maximum(0.6 * local + 0.4 * typical, 1e-3)
    detail = np.clip(light / base, 0, 2)
    planes = [detail * 127.5, other * 255, np.zeros_like(light), picture[..., 3]]
    return np.stack([np.asarray(np.clip(p, 0, 255), np.uint8) for p in planes], -1)


def noise_tile(size: int) -> NDArray[np.uint8]:
    """(size, size, 4) seamless noise; red spread evenly over 0..255, the rest about 128."""
    g = np.random.default_rng(20261122)
    red = ndimage.gaussian_filter(g.standard_normal((size, size)), 0.9, mode="wrap")
    red = red.ravel().argsort().argsort().reshape(size, size) / (size * size)
    rest = ndimage.gaussian_filter(g.standard_normal((size, size, 3)), (1.0, 1.0, 0), mode="wrap")
    rest = np.clip(rest / rest.std() * 0.22 + 0.5, 0, 1)
    return np.asarray(np.concatenate([red[..., None], rest], 2) * 255, np.uint8)


def rotation(yaw: float, pitch: float, roll: float) -> FloatArray:
    """Turn by degrees: yaw to +x, then pitch (positive tips forward), then roll."""
    a, b, c = np.radians([yaw, pitch, roll])
    ry = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    rx = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(ry @ rx @ rz, np.float32)


def sphere(count: int) -> FloatArray:
    """Unit directions spread evenly over a sphere (a golden spiral), (count, 3)."""
    i = np.arange(count) + 0.5
    y, angle = 1 - 2 * i / count, np.pi * (1 + 5**0.5) * i
    radius = np.sqrt(1 - y * y)
    return np.stack([radius * np.cos(angle), y, radius * np.sin(angle)], 1).astype(np.float32)


def _roll(degrees: float) -> FloatArray:
    return rotation(0, 0, degrees)


def about(point: FloatArray, turn: FloatArray) -> FloatArray:
    """A rotation about a point, (4, 4)."""
    matrix = np.eye(4, dtype=np.float32)
    matrix[:3, :3] = turn
    matrix[:3, 3] = point - turn @ point
    return matrix


def transform(matrix: FloatArray, points: FloatArray) -> FloatArray:
    """Apply an affine matrix to (n, 3) points."""
    return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3], np.float32)


def project(camera: FloatArray, points: FloatArray, size: int) -> FloatArray:
    """Pixels x, y of world points in a picture of this size, (n, 2)."""
    clip = np.concatenate([points, np.ones((len(points), 1), np.float32)], 1) @ camera.T
    flat = clip[:, :2] / clip[:, 3:]
    return np.stack([(flat[:, 0] + 1) * size / 2, (1 - flat[:, 1]) * size / 2], 1)


def light_camera(centre: FloatArray, direction: FloatArray, reach: float) -> FloatArray:
    """An orthographic camera that looks at the head from where the key light stands."""
    z = direction / np.linalg.norm(direction)
    up = np.array([0, 1, 0], np.float32) if abs(z[1]) < 0.95 else np.array([0, 0, 1], np.float32)
    x = np.cross(up, z)
    x /= np.linalg.norm(x)
    turn = np.stack([x, np.cross(z, x), z])
    matrix = np.eye(4, dtype=np.float32)
    matrix[:3, :3] = turn
    matrix[:3, 3] = -turn @ centre
    lens = np.diag([1 / reach, 1 / reach, -1 / (2 * reach), 1]).astype(np.float32)
    return np.asarray(lens @ matrix, np.float32)


def _columns(matrix: FloatArray) -> bytes:
    """Bytes of one matrix, or several, in OpenGL's column order."""
    return np.ascontiguousarray(np.swapaxes(matrix, -1, -2), np.float32).tobytes()


def _write(part: Part, positions: FloatArray, normals: FloatArray, corners: IntArray) -> None:
    part.dynamic.write(np.concatenate([positions, normals], 1)[corners].astype("f4").tobytes())


def _known(basis: Basis, actions: tuple[tuple[str, float], ...]) -> dict[str, float]:
    return dict(actions)
