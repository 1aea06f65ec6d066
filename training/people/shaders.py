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

SHADOW_FRAGMENT = """
#version 330
uniform sampler2D picture; uniform float cutoff;
in vec2 uv;
void main() { if (cutoff > 0.0 && texture(picture, uv).a < cutoff) discard; }
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
void main() {
    vec3 d = place_turn * normalize(vec3(point * tangent, -1.0));
    colour = vec4(develop(textureLod(place, place_uv(d), blur).rgb * gain), 1.0);
}
"""
)

HEAD = (
    """
#version 330
uniform sampler2D picture; uniform sampler2D place; uniform sampler2D shadow_map;
uniform mat3 place_turn; uniform vec3 harmonics[9]; uniform vec3 key_direction; uniform vec3 key;
uniform vec3 eye; uniform vec3 fill; uniform vec3 gain; uniform vec3 tint; uniform vec4 options;
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
float lit(float bias) {
    vec3 p = shadow_position.xyz * 0.5 + 0.5;
    if (p.x < 0.0 || p.x > 1.0 || p.y < 0.0 || p.y > 1.0) return 1.0;
    float sum = 0.0;
    vec2 texel = 1.3 / vec2(textureSize(shadow_map, 0));
    for (int i = -1; i <= 1; i++) for (int j = -1; j <= 1; j++)
        sum += step(p.z - bias, texture(shadow_map, p.xy + vec2(i, j) * texel).r);
    return sum / 9.0;
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
    vec3 n = normalize(normal), v = normalize(eye - position);
    vec3 albedo = texture(picture, uv).rgb;
    float nl = dot(n, key_direction);
    float s = lit(0.004 + 0.006 * (1.0 - max(nl, 0.0)));
    vec3 wrap = vec3(0.35, 0.15, 0.08);
    vec3 facing = clamp((vec3(nl) + wrap) / (1.0 + wrap), 0.0, 1.0);
    vec3 bleeding = mix(vec3(s), vec3(pow(s, 0.6), s, s), 0.6);
    vec3 diffuse = key * facing * bleeding * mix(1.0, smoothstep(-0.3, 0.1, nl), 0.5);
    vec3 open_colour = pow(vec3(open_sky), vec3(0.85, 1.0, 1.08));  // blood glows in creases
    vec3 soft = soft_light(n) * open_colour;
    vec3 radiance = albedo * (diffuse * mix(vec3(1.0), open_colour, 0.45) + soft) / 3.14159265;
    float gloss = 1.0 - 0.5 * smoothstep(0.1, 0.5, albedo.r);
    radiance += key * s * open_sky * (0.75 * ggx(n, v, key_direction, 0.5, 0.028)
                         + 0.25 * ggx(n, v, key_direction, 0.32, 0.028));
    vec3 r = reflect(-v, n);
    float fresnel = 0.028 + 0.22 * pow(1.0 - max(dot(n, v), 0.0), 5.0);
    radiance += soft_light(r) / 3.14159265 * fresnel * 0.55 * open_sky * (0.5 + 0.5 * gloss);
    finish(radiance, 1.0);
}
"""
)

EYE = (
    HEAD
    + """
uniform vec3 centre; uniform vec3 gaze; uniform vec3 gaze_right; uniform vec3 gaze_up;
uniform float lid_shade;
void main() {
    vec3 v = normalize(eye - position);
    vec3 d = normalize(position - centre);
    vec2 across = vec2(dot(d, gaze_right), dot(d, gaze_up));
    float r = length(across) * sign(dot(d, gaze) + 1e-4);
    if (r < 0.0) r = 1.0;
    float iris = options.x;
    vec3 white = vec3(0.64, 0.60, 0.57) * (1.0 - 0.25 * smoothstep(0.5, 0.95, r));
    vec2 at = vec2(options.y, options.z) + across / iris * options.w;
    vec3 stained = textureLod(picture, at, 0.0).rgb;
    stained *= 0.9 * tint;
    stained *= 1.0 - 0.55 * smoothstep(0.75, 1.0, r / iris);
    stained = mix(vec3(0.004), stained, smoothstep(0.30, 0.38, r / iris));
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
    vec3 window = normalize(vec3(-0.28, 0.42, 0.86));
    float glint = smoothstep(0.955, 0.985, dot(up, window));
    radiance += glint * (soft_light(vec3(0.0, 0.2, 0.98)) * 0.16 + key * 0.03);
    finish(radiance, 1.0);
}
"""
)

HAIR = (
    HEAD
    + """
uniform vec3 centre; uniform vec4 hat_plane;
void main() {
    vec4 strand = texture(picture, uv);
    if (strand.a < 0.12) discard;
    if (dot(rest, hat_plane.xyz) > hat_plane.w) discard;
    float alpha = clamp((strand.a - 0.35) / max(fwidth(strand.a), 1e-3) * 0.5 + 0.5, 0.0, 1.0);
    if (alpha < 0.02) discard;
    vec3 v = normalize(eye - position);
    vec3 flat_n = normalize(normal) * (gl_FrontFacing ? 1.0 : -1.0);
    vec3 n = normalize(flat_n * 0.55 + normalize(position - centre));
    float detail = pow(dot(strand.rgb, vec3(0.2126, 0.7152, 0.0722)) / options.x, options.y);
    vec3 albedo = tint * clamp(detail, 0.12, 2.6);
    float nl = dot(n, key_direction);
    float s = lit(0.02);
    vec3 direct = key * clamp((nl + 0.25) / 1.25, 0.0, 1.0) * mix(0.25, 1.0, s);
    vec3 soft = soft_light(n);
    vec3 radiance = albedo * (direct + soft) / 3.14159265;
    vec3 along = normalize(cross(n, cross(vec3(0.0, 1.0, 0.0), n)) + 1e-4);
    vec3 h = normalize(v + key_direction);
    float th = dot(along, h);
    float sheen = pow(max(1.0 - th * th, 0.0), 40.0) * clamp(nl + 0.2, 0.0, 1.0) * s;
    float hs = dot(along, normalize(v + vec3(0.0, 0.7, 0.7)));
    float soft_sheen = pow(max(1.0 - hs * hs, 0.0), 24.0) * detail;
    radiance += (tint * 0.6 + 0.018) * (key * sheen * 0.5 * detail + soft * soft_sheen * 0.09);
    finish(radiance, alpha);
}
"""
)

BROW = (
    HEAD
    + """
void main() {
    float alpha = texture(picture, uv).a;
    alpha = smoothstep(options.x * 0.4, options.x * 1.6, alpha) * options.y;
    if (alpha < 0.03) discard;
    vec3 n = normalize(normal);
    if (!gl_FrontFacing) n = -n;
    vec3 radiance = tint * (key * max(dot(n, key_direction) * 0.8 + 0.2, 0.0) * lit(0.02)
                    + soft_light(n)) / 3.14159265;
    finish(radiance, alpha);
}
"""
)

CLOTH = (
    HEAD
    + """
void main() {
    vec4 woven = texture(picture, uv);
    if (woven.a < 0.4) discard;
    vec3 v = normalize(eye - position), n = normalize(normal);
    if (!gl_FrontFacing) n = -n;
    float detail = dot(woven.rgb, vec3(0.2126, 0.7152, 0.0722)) / options.x;
    vec3 albedo = mix(tint * clamp(mix(1.0, detail, options.y), 0.3, 1.9), woven.rgb, options.z);
    float nl = dot(n, key_direction);
    vec3 radiance = albedo * (key * max(nl, 0.0) * lit(0.008) + soft_light(n)) / 3.14159265;
    float rim = pow(1.0 - max(dot(n, v), 0.0), 3.0);
    radiance += albedo * soft_light(n) * rim * 0.06;
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
    float fresnel = 0.04 + 0.9 * pow(1.0 - abs(dot(n, v)), 5.0);
    radiance += mirrored * fresnel * options.x + key * ggx(n, v, key_direction, 0.25, 0.04);
    finish(radiance, options.y);
}
"""
)
