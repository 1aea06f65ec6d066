// What the page does by itself: photos in by file, drop or camera, the progress of a drawing, one
// polite voice for screen readers, shortcuts, and a word when the program does not answer.
(() => {
  "use strict";
  if (window.imaginePage) return;
  window.imaginePage = true;

  const regions = {};
  let words = {};
  let boot = null;
  let lost = false;
  let replaces = null;
  let pose = 0;
  let stream = null;
  let focused = null;

  // Regions ------------------------------------------------------------------------------------
  window.imagineBind = () => {
    for (const region of window.imagineRegions.splice(0)) {
      regions[region.name] = region;
      region.element.addEventListener("click", (event) => {
        const button = event.target.closest("[data-action]");
        if (button) region.trigger("click", { action: button.dataset.action, id: button.dataset.id });
      });
      if (region.name === "progress") region.watch("value", () => showProgress(region));
      else new MutationObserver(() => changed(region)).observe(
        region.element, { childList: true, subtree: true, characterData: true });
      if (region.name === "progress") showProgress(region); else changed(region);
    }
  };

  function changed(region) {
    keepFocus(region);
    const block = document.getElementById(region.name);
    const empty = !region.element.textContent.trim() && !region.element.querySelector("img, input, button");
    block?.classList.toggle("is-empty", empty);
    const said = region.element.querySelector(".note");
    if (said) announce(said.textContent);
  }

  // A region is drawn anew when something in it changes: whoever stood on a button stays on it.
  function keepFocus(region) {
    if (!focused || document.activeElement !== document.body) return;
    if (focused.region !== region.name) return;
    const again = region.element.querySelector(
      `[data-action="${CSS.escape(focused.action)}"][data-id="${CSS.escape(focused.id)}"]`);
    const other = region.element.querySelector("[data-action], a, button");
    (again || other || document.getElementById(region.name))?.focus({ preventScroll: true });
  }

  document.addEventListener("focusin", (event) => {
    const button = event.target.closest?.("[data-action]");
    const region = button && Object.values(regions).find((each) => each.element.contains(button));
    focused = region
      ? { region: region.name, action: button.dataset.action, id: button.dataset.id } : null;
  });

  function showProgress(region) {
    let facts = region.props.value || {};
    if (typeof facts === "string") { try { facts = JSON.parse(facts); } catch { facts = {}; } }
    const box = region.element.querySelector(".progress");
    if (!box) return;
    document.getElementById("progress")?.classList.toggle("is-empty", !facts.active);
    if (facts.active && box.hidden) setTimeout(() => comeIntoView(box), 50);
    box.hidden = !facts.active;
    const bar = box.querySelector(".bar");
    bar.setAttribute("aria-label", facts.label || "");
    bar.setAttribute("aria-valuenow", facts.percent || 0);
    bar.setAttribute("aria-valuetext", facts.text || "");
    bar.firstElementChild.style.width = `${facts.percent || 0}%`;
    box.querySelector(".says").textContent = facts.text || "";
    const image = box.querySelector(".preview");
    if (facts.preview && image.getAttribute("src") !== facts.preview) {
      // Shown when it is here, so that a slow network leaves the older one standing.
      const next = new Image();
      next.onload = () => { image.src = facts.preview; image.hidden = false; };
      next.src = facts.preview;
    }
    if (!facts.preview) { image.hidden = true; image.removeAttribute("src"); }
    image.alt = facts.alt || "";
    if (facts.announce) announce(facts.announce);
  }

  // On a phone the pictures are below the form: go there once, when drawing begins.
  function comeIntoView(box) {
    if (box.getBoundingClientRect().top > innerHeight - 80) box.scrollIntoView({ block: "center" });
  }

  // The voice ----------------------------------------------------------------------------------
  const voice = document.createElement("div");
  voice.id = "voice";
  voice.className = "offscreen";
  voice.setAttribute("role", "status");
  voice.setAttribute("aria-live", "polite");
  function announce(text) {
    text = text.trim();
    if (text && voice.textContent !== text) voice.textContent = text;
  }

  const banner = document.createElement("div");
  banner.id = "banner";
  banner.setAttribute("role", "alert");
  banner.hidden = true;
  function say(text) { banner.textContent = text; banner.hidden = !text; }

  // Sending ------------------------------------------------------------------------------------
  async function send(url, body, headers) {
    const answer = await fetch(url, { method: "POST", body, headers, credentials: "same-origin" });
    const facts = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(facts.message || words["net.failed"] || "");
    return facts;
  }

  const MAX_SIDE = 2048;
  // Large photos are made smaller here: quicker to judge, and place and date stay on this device.
  async function smaller(file) {
    try {
      const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
      const scale = MAX_SIDE / Math.max(bitmap.width, bitmap.height);
      if (scale >= 1) return file;
      const canvas = document.createElement("canvas");
      canvas.width = Math.round(bitmap.width * scale);
      canvas.height = Math.round(bitmap.height * scale);
      canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
      return await new Promise((done) => canvas.toBlob((blob) => done(blob || file), "image/jpeg", 0.95));
    } catch {
      return file; // the browser cannot read it; the program says what it is
    }
  }

  function tell(text, kind) {
    const region = regions["me-note"];
    region.props.value = "";
    const note = document.createElement("p");
    note.className = `note ${kind || "plain"}`;
    note.textContent = text;
    region.props.value = note.outerHTML;
    announce(text);
  }

  async function addPhotos(files) {
    const errors = [];
    for (const file of files) {
      tell(words["me.looking"] || "");
      const headers = { "X-Name": encodeURIComponent(file.name || "camera.jpg") };
      if (replaces) headers["X-Replaces"] = replaces;
      replaces = null;
      try {
        await send("/private/photos", await smaller(file), headers);
      } catch (error) {
        errors.push(error instanceof TypeError ? words["net.failed"] : error.message);
      }
      regions.upload.trigger("upload");
    }
    if (errors.length) setTimeout(() => tell(errors.join(" "), "bad"), 400);
  }

  async function verify(file) {
    const region = regions["verify-result"];
    region.props.value = `<p class="muted">${words["verify.looking"] || ""}</p>`;
    try {
      const headers = { "X-Name": encodeURIComponent(file.name || "") };
      region.props.value = (await send("/verify/picture", file, headers)).html;
    } catch (error) {
      const note = document.createElement("p");
      note.className = "note bad";
      note.textContent = error instanceof TypeError ? words["net.failed"] : error.message;
      region.props.value = note.outerHTML;
      announce(note.textContent);
    }
  }

  // Camera -------------------------------------------------------------------------------------
  const camera = () => document.querySelector(".camera");
  async function openCamera() {
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        video: { width: { ideal: 1280 }, height: { ideal: 960 }, facingMode: "user" }, audio: false });
    } catch {
      return tell(words["me.no_camera"] || "", "bad");
    }
    camera().hidden = false;
    const video = camera().querySelector("video");
    video.srcObject = stream;
    await video.play();
    showPose(0);
    camera().querySelector('[data-js="take"]').focus();
  }
  function showPose(step) {
    const line = camera().querySelector(".pose");
    const poses = line.dataset.poses.split("|");
    pose = (pose + step) % poses.length;
    line.textContent = `${pose + 1}/${poses.length} · ${poses[pose]}`;
    announce(poses[pose]);
  }
  function closeCamera() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    if (camera()) { camera().hidden = true; camera().querySelector("video").srcObject = null; }
  }
  async function takePhoto() {
    const video = camera().querySelector("video");
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.95));
    const number = pose + 1;
    showPose(1);
    await addPhotos([new File([blob], `camera-${number}.jpg`, { type: "image/jpeg" })]);
  }
  addEventListener("pagehide", closeCamera);

  // Presses ------------------------------------------------------------------------------------
  const presses = {
    choose: (button) => { replaces = null; document.getElementById(button.dataset.for).click(); },
    replace: (button) => {
      replaces = button.dataset.id;
      if (stream) takePhoto(); else document.getElementById("photo-files").click();
    },
    camera: openCamera,
    take: takePhoto,
    pose: () => showPose(1),
    "close-camera": () => { closeCamera(); document.querySelector('[data-js="camera"]').focus(); },
    theme: () => {
      const dark = document.body.classList.toggle("dark");
      document.body.classList.toggle("light", !dark);
    },
    example: (button) => fillPrompt(button.textContent),
    zip: (link) => {
      const chosen = [...document.querySelectorAll("#gallery [data-choose]:checked")];
      const ids = chosen.map((box) => box.dataset.choose).join(",");
      link.href = "/private/pictures.zip" + (ids ? `?ids=${ids}` : "");
    },
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-js]");
    if (button && presses[button.dataset.js]) presses[button.dataset.js](button);
  });
  function fillPrompt(text) {
    const box = document.querySelector("#prompt textarea");
    box.value = text;
    box.dispatchEvent(new Event("input", { bubbles: true }));
    box.focus();
  }

  document.addEventListener("change", (event) => {
    const input = event.target;
    if (input.id === "photo-files" && input.files.length) {
      addPhotos([...input.files]).finally(() => { input.value = ""; });
    } else if (input.id === "verify-file" && input.files.length) {
      verify(input.files[0]).finally(() => { input.value = ""; });
    }
  });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      const zone = event.target.closest?.("[data-drop]");
      event.preventDefault(); // a file dropped beside a zone must not replace the page
      document.querySelectorAll(".drop.over").forEach((each) => each.classList.remove("over"));
      if (!zone) return;
      if (kind === "dragover" || kind === "dragenter") zone.classList.add("over");
      if (kind !== "drop" || !event.dataTransfer.files.length) return;
      if (zone.dataset.drop === "photos") addPhotos([...event.dataTransfer.files]);
      else verify(event.dataTransfer.files[0]);
    });
  }
  document.addEventListener("keydown", (event) => {
    const wish = event.target.closest?.("#prompt, #canvas, .card");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && wish) {
      event.preventDefault();
      document.getElementById("draw")?.click();
    }
    if (event.key === "Escape" && stream) presses["close-camera"]();
  });

  // Is the program still there, and is it the same? ----------------------------------------------
  async function lookAfter() {
    try {
      const facts = await send("/private/session", "", {});
      words = facts.words;
      if (boot !== null && (boot !== facts.boot || !facts.known)) {
        say(words["net.restarted"]);
        regions.who?.trigger("tick");
      } else if (lost) {
        say("");
        announce(words["net.back"]);
        regions.who?.trigger("tick");
      }
      boot = facts.boot;
      lost = false;
    } catch {
      if (!lost) say(words["net.lost"] || "");
      lost = true;
    }
    setTimeout(lookAfter, lost ? 2000 : 15000);
  }
  addEventListener("online", lookAfter);

  function begin() {
    document.body.append(voice, banner);
    lookAfter();
  }
  if (document.body) begin(); else addEventListener("DOMContentLoaded", begin);
  if (window.imagineRegions) window.imagineBind();
})();
