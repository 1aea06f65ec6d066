"""GLSL programs of the renderer; each fragment shader is a shared head plus one material."""

from __future__ import annotations

VERTEX = """
#version 330
uniform mat4 bones[4];
uniform mat4 body;
uniform mat4 camera;
uniform mat4 light;
in vec3 in_position; in vec3 in_normal; in vec2 in_uv; in vec4 in_weights; in float in_open;
out float open_sky; out vec3 rest;
out vec3 position; out vec3 normal; out vec2 uv; out vec4 shadow_position;
void main() {
    float still = 1.0 - dot(in_weights, vec4(1.0));
    mat4 skin = bones[0] * in_weights.x + bones[1] * in_weights.y
              + bones[2] * in_weights.z + bones[3] * in_weights.w;
    vec4 posed = skin * vec4(in_position, 1.0) + vec4(in_position, 1.0) * still;
    vec3 turned = mat3(skin) * in_normal + in_normal * still;
    vec4 world = body * vec4(posed.xyz, 1.0);
    position = world.xyz;
    normal = mat3(body) * turned;
    uv = in_uv;
    rest = in_position;
    open_sky = in_open;
    shadow_position = light * world;
    gl_Position = camera * world;
}
"""

FUR_VERTEX = (
    VERTEX.replace(
        "uniform mat4 light;", "uniform mat4 light; uniform vec4 shells; out float layer;"
    )
    .replace("vec4 posed =", "vec3 grown = in_position + fur_offset();\n    vec4 posed =")
    .replace("skin * vec4(in_position", "skin * vec4(grown")
    .replace("+ vec4(in_position", "+ vec4(grown")
    .replace(
        "void main() {",
        """vec3 fur_offset() {  // shells: how many, length, how far down and back strands lie
    layer = (float(gl_InstanceID) + 1.0) / shells.x;
    vec3 comb = vec3(0.0, -shells.z, -shells.w);
    return shells.y * (layer * in_normal + layer * layer * comb);
}
void main() {""",
    )
)

SHADOW_FRAGMENT = """
#version 330
uniform sampler2D picture; uniform float cutoff; uniform vec4 trim;
in vec2 uv; in vec3 rest;
void main() {
    if (cutoff <= 0.0) return;
    if (texture(picture, uv).a < cutoff || rest.y < trim.x) discard;
    if (rest.z > trim.w && abs(rest.x) < trim.z && rest.y < trim.y) discard;
}
"""

QUAD_VERTEX = """
#version 330
in vec2 in_position;
out vec2 point;
void main() { point = in_position; gl_Position = vec4(in_position, 0.0, 1.0); }
"""

TONE = """
vec3 develop(vec3 c) {
    c = clamp((c * (2.51 * c + 0.03)) / (c * (2.43 * c + 0.59) + 0.14), 0.0, 1.0);
    return mix(c * 12.92, 1.055 * pow(c, vec3(1.0 / 2.4)) - 0.055, step(0.0031308, c));
}
vec2 place_uv(vec3 d) {
    return vec2(atan(d.x, d.z) * 0.15915494 + 0.5, 0.5 + asin(clamp(d.y, -1.0, 1.0)) * 0.31830989);
}
"""

BACKGROUND_FRAGMENT = (
    """
#version 330
uniform sampler2D place; uniform mat3 place_turn; uniform vec2 tangent; uniform float blur;
uniform vec3 gain;
in vec2 point; out vec4 colour;
"""
    + TONE
    + """
vec3 smooth_place(vec2 at) {  // four bilinear reads make a cubic one: no texels to be seen
    vec2 size = vec2(textureSize(place, 0)) / exp2(blur);
    vec2 p = at * size - 0.5, f = fract(p);
    p -= f;
    vec2 f2 = f * f, f3 = f2 * f;
    vec2 w0 = (1.0 - 3.0 * f + 3.0 * f2 - f3) / 6.0, w1 = (4.0 - 6.0 * f2 + 3.0 * f3) / 6.0;
    vec2 w3 = f3 / 6.0, w2 = 1.0 - w0 - w1 - w3, a = w0 + w1, b = w2 + w3;
    vec2 low = (p - 0.5 + w1 / a) / size, high = (p + 1.5 + w3 / b) / size;
    vec3 near = a.x * textureLod(place, low, blur).rgb
              + b.x * textureLod(place, vec2(high.x, low.y), blur).rgb;
    vec3 far = a.x * textureLod(place, vec2(low.x, high.y), blur).rgb
             + b.x * textureLod(place, high, blur).rgb;
    return a.y * near + b.y * far;
}
void main() {
    vec3 d = place_turn * normalize(vec3(point * tangent, -1.0));
    colour = vec4(develop(smooth_place(place_uv(d)) * gain), 1.0);
}
"""
)

HEAD = (
    """
#version 330
uniform sampler2D picture; uniform sampler2D place; uniform sampler2D shadow_map;
uniform mat3 place_turn; uniform vec3 harmonics[9]; uniform vec3 key_direction; uniform vec3 key;
uniform vec3 eye; uniform vec3 fill; uniform vec3 gain; uniform vec3 tint; uniform vec4 options;
uniform sampler2D noise; uniform vec3 rim_direction; uniform vec3 rim; uniform float softness;
in vec3 position; in vec3 normal; in vec2 uv; in vec4 shadow_position;
in vec3 rest; in float open_sky;
out vec4 colour;
"""
    + TONE
    + """
vec3 soft_light(vec3 world) {
    vec3 n = place_turn * world;
    vec3 e = harmonics[0] * 0.282095 + harmonics[1] * (0.488603 * n.y)
      + harmonics[2] * (0.488603 * n.z) + harmonics[3] * (0.488603 * n.x)
      + harmonics[4] * (1.092548 * n.x * n.y) + harmonics[5] * (1.092548 * n.y * n.z)
      + harmonics[6] * (0.315392 * (3.0 * n.z * n.z - 1.0)) + harmonics[7] * (1.092548 * n.x * n.z)
      + harmonics[8] * (0.546274 * (n.x * n.x - n.y * n.y));
    vec3 towards = normalize(eye - position);
    return max(e, vec3(0.0)) + fill * (0.35 + 0.65 * max(dot(world, towards), 0.0));
}
const vec2 DISC[8] = vec2[](vec2(0.3, 0.14), vec2(-0.25, 0.3), vec2(-0.1, -0.4), vec2(0.94, -0.2),
    vec2(0.58, 0.79), vec2(-0.44, 0.88), vec2(-0.97, -0.15), vec2(0.35, -0.9));
float lit(float bias) {  // a lamp of some width: its shadow has a soft edge
    vec3 p = shadow_position.xyz * 0.5 + 0.5;
    if (p.x < 0.0 || p.x > 1.0 || p.y < 0.0 || p.y > 1.0) return 1.0;
    float sum = 0.0;
    float turn = 6.2831 * fract(52.98 * fract(dot(gl_FragCoord.xy, vec2(0.06711, 0.00584))));
    mat2 spin = mat2(cos(turn), sin(turn), -sin(turn), cos(turn));
    vec2 texel = softness / vec2(textureSize(shadow_map, 0));
    for (int i = 0; i < 8; i++)
        sum += step(p.z - bias * (0.7 + 0.3 * softness),
                    texture(shadow_map, p.xy + spin * DISC[i] * texel).r);
    return sum * 0.125;
}
float lit_once(float bias) {  // for what is drawn in many layers
    vec3 p = shadow_position.xyz * 0.5 + 0.5;
    if (p.x < 0.0 || p.x > 1.0 || p.y < 0.0 || p.y > 1.0) return 1.0;
    return 0.15 + 0.85 * step(p.z - bias, texture(shadow_map, p.xy).r);
}
vec3 grazing(vec3 n, vec3 v, float wrap) {  // a lamp behind the head draws its edge
    float edge = pow(1.0 - max(dot(n, v), 0.0), 1.5);
    return rim * (clamp((dot(n, rim_direction) + wrap) / (1.0 + wrap), 0.0, 1.0)) * (0.35 + edge);
}
float ggx(vec3 n, vec3 v, vec3 l, float roughness, float f0) {
    vec3 h = normalize(v + l);
    float nh = max(dot(n, h), 0.0), nl = max(dot(n, l), 0.0), nv = max(dot(n, v), 1e-3);
    float a = roughness * roughness, a2 = a * a;
    float d = nh * nh * (a2 - 1.0) + 1.0;
    float k = a * 0.5;
    float g = 1.0 / ((nl * (1.0 - k) + k) * (nv * (1.0 - k) + k) * 4.0);
    float f = f0 + (1.0 - f0) * pow(1.0 - max(dot(v, h), 0.0), 5.0);
    return a2 / (3.14159265 * d * d) * g * f * nl;
}
void finish(vec3 radiance, float alpha) { colour = vec4(develop(radiance * gain), alpha); }
"""
)

SKIN = (
    HEAD
    + """
void main() {
    vec3 smooth_n = normalize(normal), v = normalize(eye - position);
    vec4 painted = texture(picture, uv);
    vec3 albedo = painted.rgb;
    vec3 pores = texture(noise, uv * 9.0).gba - 0.5, bumps = texture(noise, uv * 2.6).gba - 0.5;
    vec3 n = normalize(smooth_n + (0.35 * pores + 0.2 * bumps) * options.x);
    float nl = dot(n, key_direction);
    float s = lit(0.004 + 0.006 * (1.0 - max(nl, 0.0)));
    vec3 wrap = vec3(0.30, 0.13, 0.07);
    vec3 facing = clamp((vec3(nl) + wrap) / (1.0 + wrap), 0.0, 1.0);
    vec3 bleeding = vec3(pow(s, 0.62), s, s);
    vec3 diffuse = key * facing * bleeding * mix(1.0, smoothstep(-0.3, 0.1, nl), 0.5);
    vec3 open_colour = pow(vec3(open_sky), vec3(0.85, 1.1, 1.2));  // blood glows in creases
    vec3 soft = soft_light(normalize(smooth_n + 0.5 * (n - smooth_n))) * open_colour;
    vec3 behind = grazing(smooth_n, v, 0.15);
    vec3 radiance = albedo * (diffuse * mix(vec3(1.0), open_colour, 0.45) + soft
                              + behind * vec3(1.0, 0.8, 0.72)) / 3.14159265;
    float gloss = painted.a * 2.0 * options.y;
    float rough = mix(0.55, 0.36, clamp(gloss * 0.7, 0.0, 1.0)) + 0.10 * pores.x;
    radiance += key * s * open_sky * gloss * (0.8 * ggx(n, v, key_direction, rough, 0.034)
                         + 0.3 * ggx(n, v, key_direction, rough * 0.55, 0.03));
    radiance += rim * open_sky * gloss * 0.8 * ggx(smooth_n, v, rim_direction, 0.42, 0.034);
    vec3 r = reflect(-v, n);
    float fresnel = 0.03 + 0.25 * pow(1.0 - max(dot(n, v), 0.0), 5.0);
    vec3 sky = mix(soft_light(r) / 3.14159265, textureLod(place, place_uv(place_turn * r), 5.0).rgb,
                   0.5);
    radiance += sky * fresnel * 0.9 * open_sky * (0.3 + 0.7 * gloss);
    finish(radiance, 1.0);
}
"""
)

EYE = (
    HEAD
    + """
uniform vec3 centre; uniform vec3 gaze; uniform vec3 gaze_right; uniform vec3 gaze_up;
uniform vec4 catch_light; uniform float pupil;
void main() {
    vec3 v = normalize(eye - position);
    vec3 d = normalize(position - centre);
    vec2 across = vec2(dot(d, gaze_right), dot(d, gaze_up));
    float r = length(across) * sign(dot(d, gaze) + 1e-4);
    if (r < 0.0) r = 1.0;
    float iris = options.x;
    vec3 white = vec3(0.60, 0.55, 0.51) * (1.0 - 0.3 * smoothstep(0.5, 0.95, r));
    float veins = smoothstep(0.62, 0.9, texture(noise, d.xy * vec2(0.5, 2.2)).r);
    white *= mix(vec3(1.0), vec3(1.0, 0.78, 0.74), veins * smoothstep(0.5, 0.8, r) * 0.6);
    vec2 at = vec2(options.y, options.z) + across / iris * options.w;
    vec3 stained = textureLod(picture, at, 0.0).rgb;
    stained *= 0.9 * tint;
    stained *= 1.0 - 0.55 * smoothstep(0.75, 1.0, r / iris);
    stained = mix(vec3(0.004), stained, smoothstep(pupil, pupil + 0.07, r / iris));
    vec3 albedo = mix(stained, white, smoothstep(0.93, 1.05, r / iris));
    vec3 n = normalize(mix(d, gaze, 0.35 * (1.0 - smoothstep(0.3, 0.6, r))));
    float s = lit(0.012);
    float nl = max(dot(d, key_direction), 0.0);
    float shade = mix(0.45, 1.0, smoothstep(0.55, -0.15, d.y - gaze.y * 0.5)) * 0.85;
    vec3 radiance = albedo * shade * (key * nl * s + soft_light(d)) / 3.14159265;
    vec3 up = reflect(-v, n);
    vec3 mirrored = textureLod(place, place_uv(place_turn * up), 3.0).rgb;
    float fresnel = 0.03 + 0.4 * pow(1.0 - max(dot(n, v), 0.0), 5.0);
    radiance += mirrored * fresnel * 0.6 * shade;
    radiance += key * s * min(ggx(n, v, key_direction, 0.16, 0.03), 1.5);
    // the lamp or window one stands before, mirrored as a small bright shape
    vec3 side = normalize(cross(vec3(0.0, 1.0, 0.0), catch_light.xyz));
    vec3 high = cross(catch_light.xyz, side);
    vec2 off = abs(vec2(dot(up, side), dot(up, high)));
    float round_shape = smoothstep(0.20, 0.12, length(off));
    float pane = smoothstep(0.17, 0.12, off.x) * smoothstep(0.24, 0.18, off.y);
    float glint = mix(round_shape, pane, catch_light.w) * step(0.0, dot(up, catch_light.xyz));
    radiance += glint * (soft_light(vec3(0.0, 0.2, 0.98)) * 0.2 + key * 0.06);
    float tear = smoothstep(0.12, 0.0, abs(dot(d, gaze_up) + 0.33)) * smoothstep(0.9, 0.5, r);
    radiance += tear * soft_light(v) * 0.03;
    finish(radiance, 1.0);
}
"""
)

STRANDS = """
uniform vec3 streak;
vec3 strands(vec3 n, vec3 v, vec3 along, float detail, float wisp, float s, float shade) {
    vec3 albedo = mix(tint, streak, smoothstep(0.4, 0.75, wisp)) * detail;
    float nl = dot(n, key_direction);
    vec3 direct = key * clamp((nl + 0.3) / 1.3, 0.0, 1.0) * mix(0.12, 1.0, s);
    vec3 soft = soft_light(n);
    vec3 radiance = albedo * (direct + soft + 1.6 * grazing(n, v, 0.4)) * shade / 3.14159265;
    // two highlights, as of hair under a lamp: a white one and, shifted, one of its own colour
    vec3 h = normalize(v + key_direction);
    float th = dot(normalize(along + n * (0.18 * (wisp - 0.5) - 0.06)), h);
    float th2 = dot(normalize(along + n * (0.25 * (wisp - 0.5) + 0.16)), h);
    float reach = clamp(nl + 0.25, 0.0, 1.0) * s;
    float first = pow(max(1.0 - th * th, 0.0), 60.0), second = pow(max(1.0 - th2 * th2, 0.0), 16.0);
    float up = dot(normalize(along + n * (0.3 * (wisp - 0.5))), normalize(v + vec3(0.0, 0.8, 0.4)));
    float band = pow(max(1.0 - up * up, 0.0), 20.0);
    vec3 own = sqrt(albedo + 0.004);
    radiance += shade * key * reach * (first * 0.022 + own * second * 0.06) * (0.5 + wisp);
    radiance += shade * soft * band * (0.004 + 0.03 * own) * (0.5 + wisp) * detail;
    radiance += shade * rim * (0.015 + 0.12 * own) * pow(1.0 - max(dot(n, v), 0.0), 2.0)
              * clamp(dot(n, rim_direction) + 0.5, 0.0, 1.0);
    return radiance;
}
"""

HAIR = (
    HEAD
    + STRANDS
    + """
uniform vec3 centre; uniform vec4 hat_plane; uniform vec4 trim;
void main() {
    vec4 strand = texture(picture, uv);
    if (strand.a < 0.12) discard;
    if (dot(rest, hat_plane.xyz) > hat_plane.w) discard;
    float wisp = mix(texture(noise, uv * vec2(11.0, 4.0)).r,
                     texture(noise, uv * vec2(4.0, 1.2)).r, 0.4);
    float end = rest.y + 0.22 * (wisp - 0.5);
    if (end < trim.x) discard;
    // a fringe ends above the eyes
    float open_face = trim.z - 0.16 * clamp(-rest.y, 0.0, 1.0) + 0.12 * (wisp - 0.5);
    if (rest.z > trim.w && abs(rest.x) < open_face && end < trim.y - 0.1 * abs(rest.x)) discard;
    float alpha = clamp((strand.a - 0.35) / max(fwidth(strand.a), 1e-3) * 0.5 + 0.5, 0.0, 1.0);
    if (alpha < 0.02) discard;
    vec3 v = normalize(eye - position);
    vec3 flat_n = normalize(normal) * (gl_FrontFacing ? 1.0 : -1.0);
    vec3 n = normalize(flat_n * 0.75 + normalize(position - centre));
    float detail = pow(dot(strand.rgb, vec3(0.2126, 0.7152, 0.0722)) / options.x, options.y);
    detail = clamp(detail, 0.3, 2.0) * (0.8 + 0.4 * wisp);
    vec3 along = normalize(cross(n, cross(vec3(0.0, 1.0, 0.0), n)) + 1e-4);
    finish(strands(n, v, along, detail, wisp, lit(0.02), 1.0), alpha);
}
"""
)

FUR = (  # drawn several times over the same place, so it is kept short
    HEAD
    + """
in float layer; uniform sampler2D coat; uniform vec3 streak; uniform vec4 hat_plane;
void main() {
    if (dot(rest, hat_plane.xyz) > hat_plane.w) discard;
    vec2 grown = texture(coat, uv).rg;  // how long, how dense
    if (grown.r < 0.02 || layer > grown.r * 1.05) discard;
    float tip = layer / grown.r;
    vec4 cell = texture(noise, uv * options.z);
    float threshold = 1.0 - grown.g * (1.0 - 0.75 * tip * tip);
    float alpha = smoothstep(threshold - options.w, threshold + options.w, cell.r);
    if (alpha < 0.05) discard;
    vec3 v = normalize(eye - position);
    vec3 n = normalize(normalize(normal) + 0.9 * (cell.gba - 0.5));
    vec3 albedo = mix(tint, streak, smoothstep(0.45, 0.75, cell.b)) * (0.6 + 0.8 * cell.r);
    float s = lit_once(0.02), nl = dot(n, key_direction);
    vec3 light = key * clamp((nl + 0.3) / 1.3, 0.0, 1.0) * s + soft_light(n);
    float shade = options.x + (1.0 - options.x) * clamp(tip, 0.0, 1.0);
    vec3 radiance = albedo * shade * (light + 1.6 * grazing(n, v, 0.4)) / 3.14159265;
    float nh = max(dot(n, normalize(v + key_direction)), 0.0);
    radiance += shade * s * key * (0.012 + 0.04 * sqrt(albedo)) * pow(nh, 12.0);
    finish(radiance, alpha * options.y);
}
"""
)

BROW = (
    HEAD
    + """
void main() {
    float alpha = texture(picture, uv).a;
    float hairs = texture(noise, uv * vec2(3.0, 1.5)).r;
    alpha = smoothstep(options.x * 0.4, options.x * 2.6, alpha) * options.y * (0.65 + 0.6 * hairs);
    if (alpha < 0.03) discard;
    vec3 n = normalize(normal);
    if (!gl_FrontFacing) n = -n;
    vec3 radiance = tint * (0.7 + 0.6 * hairs)
                    * (key * max(dot(n, key_direction) * 0.8 + 0.2, 0.0) * lit(0.02)
                    + soft_light(n)) / 3.14159265;
    finish(radiance, min(alpha, 1.0));
}
"""
)

CLOTH = (
    HEAD
    + """
uniform vec3 second; uniform vec4 pattern; uniform vec3 pattern_rgb;
void main() {
    vec4 woven = texture(picture, uv);  // r: light and shade, g: another piece of cloth
    if (woven.a < 0.4) discard;
    vec3 v = normalize(eye - position);
    vec3 weave = texture(noise, uv * 13.0).gba - 0.5;
    vec3 n = normalize(normal);
    if (!gl_FrontFacing) n = -n;
    n = normalize(n + 0.22 * weave);
    float detail = clamp(mix(1.0, woven.r * 2.0, options.y), 0.3, 1.8);
    vec3 albedo = mix(tint, second, smoothstep(0.3, 0.7, woven.g));
    float stripe = pattern.x > 0.0 ? smoothstep(pattern.z - 0.04, pattern.z + 0.04,
        abs(fract(dot(rest.xy, vec2(1.0 - pattern.y, pattern.y)) * pattern.x) * 2.0 - 1.0)) : 0.0;
    if (pattern.x < 0.0) {  // blocks of a print on the chest
        vec2 at = (rest.xy - vec2(0.0, pattern.y)) / vec2(-pattern.x, -0.45 * pattern.x);
        float box = step(abs(at.x), 1.0) * step(abs(at.y), 1.0) * step(0.0, rest.z);
        stripe = box * step(pattern.z, texture(noise, rest.xy * vec2(1.2, 0.45)).r);
    }
    albedo = mix(albedo, pattern_rgb, stripe * (1.0 - smoothstep(0.3, 0.7, woven.g)));
    albedo *= detail * (0.92 + 0.16 * texture(noise, uv * 21.0).r);
    float nl = dot(n, key_direction);
    vec3 radiance = albedo * (key * max(nl, 0.0) * lit(0.008) + soft_light(n) * open_sky
                              + grazing(n, v, 0.1)) / 3.14159265;
    float fuzz = pow(1.0 - max(dot(n, v), 0.0), 3.0);
    radiance += (albedo + 0.02) * soft_light(n) * fuzz * 0.08;
    radiance += key * lit(0.008) * ggx(n, v, key_direction, 0.6, 0.03) * options.w;
    finish(radiance, 1.0);
}
"""
)

TEETH = (
    HEAD
    + """
void main() {
    vec3 n = normalize(normal), v = normalize(eye - position);
    vec3 albedo = texture(picture, uv).rgb * tint;
    float deep = options.x + options.y * clamp((rest.z - options.z) / options.w, 0.0, 1.0);
    vec3 radiance = albedo * deep * (key * max(dot(n, key_direction), 0.0) * lit(0.02)
                    + soft_light(n)) / 3.14159265;
    radiance += deep * key * lit(0.02) * ggx(n, v, key_direction, 0.3, 0.04) * 0.5;
    finish(radiance, 1.0);
}
"""
)

FRAME = (
    HEAD
    + """
void main() {
    vec3 n = normalize(normal), v = normalize(eye - position);
    if (!gl_FrontFacing) n = -n;
    vec3 soft = soft_light(n);
    vec3 radiance = tint * (key * max(dot(n, key_direction), 0.0) + soft) / 3.14159265;
    vec3 up = reflect(-v, n);
    vec3 mirrored = textureLod(place, place_uv(place_turn * up), options.z).rgb;
    float fresnel = 0.045 + 0.9 * pow(1.0 - abs(dot(n, v)), 5.0);
    vec3 shine = mirrored * fresnel * options.x + key * ggx(n, v, key_direction, 0.42, 0.04)
               * (options.y < 0.5 ? 0.15 : 1.0);
    if (options.y < 0.5) {  // clear lenses add light and take a little away
        float band = smoothstep(0.35, 0.6, sin((up.x + up.y * 0.6) * 3.0 + options.w));
        shine += soft * (0.006 + 0.009 * band * options.w);
        finish(shine, 1.0);
        colour.a = clamp(options.y + dot(colour.rgb, vec3(0.25)), 0.0, 0.7);
        return;
    }
    finish(radiance + shine, options.y);
}
"""
)
