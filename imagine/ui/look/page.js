// What the page does by itself: photos in by file, drop or camera, the progress of a drawing,
// finding, comparing, one polite voice for screen readers, shortcuts, and a word when the program
// does not answer. Photos stay in this page's memory until it is closed or they are removed, so
// that neither a lost network nor a new start of the program loses them.
(() => {
  "use strict";
  if (window.imaginePage) return;
  window.imaginePage = true;

  const regions = {};
  const given = new Map(); // id of a photo -> the file
  let unsent = []; // files that did not arrive
  let words = {};
  let boot = null;
  let lost = false;
  let takesReports = false;
  let replaces = null; // id of the photo whose place the next one takes
  let pose = 0;
  let stream = null;
  let focused = null;
  const newest = { active: false, at: 0 }; // of the drawing

  // Regions ------------------------------------------------------------------------------------
  window.imagineBind = () => {
    for (const region of window.imagineRegions.splice(0)) {
      regions[region.name] = region;
      region.element.addEventListener("click", (event) => {
        const button = event.target.closest("[data-action]");
        if (!button || !button.dataset.action) return;
        if (["forget", "withdraw"].includes(button.dataset.action)) forgetHere();
        region.trigger("click", { action: button.dataset.action, id: button.dataset.id });
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
    if (region.name === "gallery") { find("gallery"); showChosen(); }
    if (["gallery", "results"].includes(region.name)) showFormat();
    if (region.name === "photos") dropRemoved();
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
    newest.active = Boolean(facts.active);
    newest.at = Date.now();
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
  function say(text) {
    banner.textContent = text;
    banner.hidden = !text;
    if (!text || text === words["net.lost"]) return; // the last goes by itself
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = words["dialog.close"] || "×";
    close.addEventListener("click", () => say(""));
    banner.append(" ", close);
  }

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
    let facts = null;
    for (const file of files) {
      tell(words["me.looking"] || "");
      const headers = { "X-Name": encodeURIComponent(file.name || "camera.jpg") };
      if (replaces) headers["X-Replaces"] = replaces;
      const replaced = replaces;
      replaces = null;
      try {
        facts = await send("/private/photos", await smaller(file), headers);
        given.delete(replaced);
        given.set(facts.id, file);
      } catch (error) {
        const failed = error instanceof TypeError;
        if (failed) { unsent.push(file); lookAfter(); }
        errors.push(failed ? words["net.failed"] : error.message);
      }
      regions.upload.trigger("upload");
    }
    if (errors.length) setTimeout(() => tell(errors.join(" "), "bad"), 400);
    return errors.length ? { kind: "refused", verdict: "", advice: errors.join(" ") } : facts;
  }

  // What the person removed is not kept here either.
  function dropRemoved() {
    const there = new Set([...document.querySelectorAll("#photos [data-photo]")]
      .map((each) => each.dataset.photo));
    if (there.size) for (const id of given.keys()) if (seen.has(id) && !there.has(id)) given.delete(id);
    for (const id of there) seen.add(id);
  }
  const seen = new Set();
  function forgetHere() {
    given.clear();
    unsent = [];
    try { sessionStorage.removeItem(DRAFT); } catch { /* storage is switched off */ }
  }

  // A tab is built when it is first opened; its regions come a moment later.
  async function whenThere(name) {
    while (!regions[name]) await new Promise((done) => setTimeout(done, 50));
    return regions[name];
  }

  async function verify(file) {
    const region = await whenThere("verify-result");
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
    taken.length = 0;
    for (const each of poses()) each.dataset.kind = "";
    showPose(0);
    camera().querySelector('[data-js="take"]').focus();
  }
  // The photo taken in each pose: {id, kind}. A pose that has one is taken again.
  const taken = [];
  const poses = () => [...camera().querySelectorAll(".poses button")];
  function showPose(chosen) {
    pose = chosen;
    const all = poses();
    all.forEach((each, number) => each.setAttribute("aria-current", number === pose ? "step" : "false"));
    const says = all[pose].dataset.says;
    camera().querySelector(".pose").textContent = `${pose + 1}/${all.length} · ${says}`;
    const take = camera().querySelector('[data-js="take"]');
    take.textContent = isTaken(pose) ? take.dataset.again : take.dataset.first;
    announce(says);
  }
  const isTaken = (number) => Boolean(
    taken[number] && document.querySelector(`#photos [data-photo="${CSS.escape(taken[number].id)}"]`));
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
    const stage = camera().querySelector(".stage");
    stage.classList.remove("flash");
    void stage.offsetWidth; // begins the flash anew
    stage.classList.add("flash");
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.95));
    const here = pose;
    if (isTaken(here)) replaces = taken[here].id;
    const facts = await addPhotos([new File([blob], `camera-${here + 1}.jpg`, { type: "image/jpeg" })]);
    if (!facts || !stream) return;
    if (facts.id) taken[here] = facts;
    poses()[here].dataset.kind = facts.kind;
    const answer = camera().querySelector(".answer");
    answer.hidden = false;
    answer.className = `answer note ${{ good: "good", refused: "bad" }[facts.kind] || "plain"}`;
    answer.textContent = [facts.verdict, facts.advice].filter(Boolean).join(": ");
    // A refused photo is taken again in the same pose; else the next pose without one.
    const next = poses().findIndex((each) => !["good", "advice"].includes(each.dataset.kind));
    showPose(facts.kind === "refused" || next < 0 ? here : next);
    announce(answer.textContent);
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
    pose: (button) => showPose(poses().indexOf(button)),
    "close-camera": () => { closeCamera(); document.querySelector('[data-js="camera"]').focus(); },
    theme: () => {
      const dark = document.body.classList.toggle("dark");
      document.body.classList.toggle("light", !dark);
      try { localStorage.setItem(THEME, dark ? "dark" : "light"); } catch { /* not allowed */ }
    },
    example: (button) => fillPrompt(button.textContent),
    "more-examples": (button) => {
      const hidden = [...button.parentElement.querySelectorAll("[data-js=example][hidden]")];
      for (const each of hidden) each.hidden = false;
      button.hidden = true;
      hidden[0]?.focus();
    },
    imagine: () => { goTo(1); whenThere("results").then(() => document.querySelector("#prompt textarea")?.focus()); },
    download: (link) => { link.href = `/private/pictures/${link.dataset.id}?download=1&suffix=${format}`; },
    zip: (link) => {
      const ids = chosen().map((box) => box.dataset.choose).join(",");
      link.href = `/private/pictures.zip?suffix=${format}` + (ids ? `&ids=${ids}` : "");
    },
    "delete-chosen": () => {
      const ids = chosen().map((box) => box.dataset.choose).join(",");
      if (ids) regions.gallery.trigger("click", { action: "delete-chosen", id: ids });
    },
    compare: (button) => openComparison(button),
    report: (button) => openReport(button),
    "close-dialog": (button) => button.closest("dialog").close(),
    "send-report": (button) => sendReport(button.closest("dialog")),
    "use-recipe": (button) => {
      const recipe = JSON.parse(button.dataset.recipe);
      fill("#prompt textarea", recipe.prompt);
      for (const name of ["seed", "steps", "guidance"]) fill(`#${name} input, #${name} textarea`, recipe[name]);
      fill("#likeness input[type=number]", recipe.likeness);
      document.querySelector(`#shape input[value="${CSS.escape(recipe.shape)}"]`)?.click();
      goTo(1);
    },
  };
  const THEME = "imagine:theme";
  const DRAFT = "imagine:wish";
  const FORMAT = "imagine:format";
  const FORMATS = [".png", ".jpg", ".webp"];
  let format = FORMATS[0]; // of downloads
  try { format = FORMATS.find((one) => one === localStorage.getItem(FORMAT)) || format; } catch { /* not allowed */ }
  function showFormat() {
    for (const each of document.querySelectorAll("[data-format]")) if (each.value !== format) each.value = format;
  }
  const goTo = (number) => document.querySelectorAll('#pages button[role="tab"]')[number]?.click();
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-js]");
    if (button && presses[button.dataset.js]) presses[button.dataset.js](button);
    if (event.target.closest("#draw, #save")) lookAfter(); // say at once if nobody hears it
  });
  function fillPrompt(text) {
    fill("#prompt textarea", text);
    document.querySelector("#prompt textarea").focus();
  }
  function fill(selector, value) {
    const box = document.querySelector(selector);
    if (!box) return;
    box.value = value;
    box.dispatchEvent(new Event("input", { bubbles: true }));
    if (box.type === "number") box.dispatchEvent(new Event("change", { bubbles: true }));
  }

  // Finding and choosing -----------------------------------------------------------------------
  const plainly = (text) => text.toLowerCase().normalize("NFD").replace(/\p{M}/gu, "");
  function find(what) {
    const box = document.getElementById(`${what}-search`);
    if (!box) return;
    const wanted = plainly(box.value.trim()).split(/\s+/);
    const all = document.querySelectorAll(what === "style" ? "#style label" : "#gallery .picture");
    let shown = 0;
    for (const each of all) {
      const text = plainly(each.dataset.words || each.textContent);
      each.hidden = !wanted.every((word) => text.includes(word));
      shown += !each.hidden;
    }
    const nothing = document.querySelector(`#${what} .nothing-found`);
    if (nothing) nothing.hidden = shown > 0;
    return shown;
  }
  document.addEventListener("input", (event) => {
    const what = event.target.dataset?.finds;
    if (what) {
      const shown = find(what);
      if (what === "gallery") announce((words["gallery.found"] || "").replace("{count}", shown));
    }
    if (event.target.closest?.("#prompt")) {
      try { sessionStorage.setItem(DRAFT, event.target.value); } catch { /* not allowed */ }
    }
  });
  const chosen = () => [...document.querySelectorAll("#gallery [data-choose]:checked")]
    .filter((box) => !box.closest(".picture").hidden);
  function showChosen() {
    const button = document.querySelector('[data-js="delete-chosen"]');
    if (!button) return;
    const count = chosen().length;
    button.hidden = !count;
    const says = button.dataset.says.replace("{count}", count);
    // Only when it changes: whoever watches this region would come back here for ever.
    if (button.textContent !== says) button.textContent = says;
  }

  // Comparing and reporting ----------------------------------------------------------------------
  function dialog(id, heading, inner) {
    document.getElementById(id)?.remove();
    const box = document.createElement("dialog");
    box.id = id;
    box.setAttribute("aria-labelledby", `${id}-heading`);
    box.innerHTML = `<div class="html-container"><p class="row top"><strong id="${id}-heading" role="heading"
      aria-level="2"></strong><button type="button" class="small second" data-js="close-dialog"></button></p>${inner}</div>`;
    box.querySelector("strong").textContent = heading;
    box.querySelector('[data-js="close-dialog"]').textContent = words["dialog.close"] || "×";
    // Inside Gradio's container, whose styles and theme it shares.
    (document.querySelector(".gradio-container") || document.body).append(box);
    box.addEventListener("click", (event) => { if (event.target === box) box.close(); });
    return box;
  }

  function openComparison(button) {
    const own = button.closest(".picture").querySelector("img");
    const others = new Map();
    for (const image of document.querySelectorAll("#photos img, #results .picture img, #gallery .picture img")) {
      const path = image.getAttribute("src");
      if (path !== own.getAttribute("src")) others.set(path, image.alt);
    }
    const box = dialog("compare", words["compare.heading"], `
      <div class="both"><img class="under" alt=""><img class="over" alt=""><span class="edge" aria-hidden="true"></span></div>
      <input type="range" min="0" max="100" value="50" class="blend">
      <p class="with muted"></p><div class="strip" role="group"></div>`);
    const [under, over] = box.querySelectorAll(".both img");
    under.src = own.getAttribute("src");
    under.alt = own.alt;
    under.onload = () => box.querySelector(".both").style.setProperty("--shape", `${under.naturalWidth} / ${under.naturalHeight}`);
    const slider = box.querySelector(".blend");
    slider.setAttribute("aria-label", words["compare.slider"]);
    const blend = () => box.querySelector(".both").style.setProperty("--share", `${slider.value}%`);
    slider.addEventListener("input", blend);
    blend();
    const strip = box.querySelector(".strip");
    strip.setAttribute("aria-label", words["compare.with"]);
    box.querySelector(".with").textContent = words[others.size ? "compare.with" : "compare.nothing"];
    slider.hidden = !others.size;
    const choose = (path) => {
      over.src = path;
      over.alt = others.get(path);
      for (const each of strip.children) each.setAttribute("aria-pressed", String(each.dataset.path === path));
    };
    for (const [path, alt] of others) {
      const choice = document.createElement("button");
      choice.type = "button";
      choice.dataset.path = path;
      choice.setAttribute("aria-label", alt);
      const small = document.createElement("img");
      small.src = path;
      small.alt = "";
      choice.append(small);
      choice.addEventListener("click", () => choose(path));
      strip.append(choice);
    }
    if (others.size) choose(others.keys().next().value);
    else over.remove();
    box.showModal();
    if (others.size) slider.focus();
  }

  function openReport(button) {
    const { id, seed, model } = button.dataset;
    if (!takesReports) {
      const box = dialog("problem", words["problem.heading"], '<p class="says"></p><pre></pre>');
      box.querySelector(".says").textContent = words["problem.nobody"];
      box.querySelector("pre").textContent = `model: ${model}\nseed: ${seed}\nbrowser: ${navigator.userAgent}`;
      return box.showModal();
    }
    const reasons = words["problem.reasons"].split("|").map((reason, number) =>
      `<label><input type="radio" name="reason" value="${reason}"${number ? "" : " checked"}> <span></span></label>`);
    const box = dialog("problem", words["problem.heading"], `
      <fieldset><legend></legend>${reasons.join("")}</fieldset>
      <label class="details"><span></span><textarea rows="3" maxlength="2000"></textarea></label>
      <p class="said" hidden></p><p class="row"><button type="button" data-js="send-report"></button></p>`);
    box.dataset.picture = id;
    box.querySelector("legend").textContent = words["problem.what"];
    for (const input of box.querySelectorAll("[name=reason]"))
      input.nextElementSibling.textContent = words[`problem.${input.value}`];
    box.querySelector(".details span").textContent = words["problem.details"];
    box.querySelector('[data-js="send-report"]').textContent = words["problem.send"];
    box.showModal();
    box.querySelector("[name=reason]").focus();
  }

  async function sendReport(box) {
    const said = box.querySelector(".said");
    said.hidden = false;
    const told = {
      picture: box.dataset.picture,
      reason: box.querySelector("[name=reason]:checked").value,
      details: box.querySelector("textarea").value,
    };
    try {
      const facts = await send("/private/reports", JSON.stringify(told), { "Content-Type": "application/json" });
      said.className = "said note good";
      said.textContent = words["problem.sent"].replace("{number}", facts.number);
      box.querySelector('[data-js="send-report"]').hidden = true;
    } catch (error) {
      said.className = "said note bad";
      said.textContent = error instanceof TypeError ? words["net.lost"] : error.message;
    }
    announce(said.textContent);
  }

  document.addEventListener("change", (event) => {
    const input = event.target;
    if (input.id === "photo-files" && input.files.length) {
      addPhotos([...input.files]).finally(() => { input.value = ""; });
    } else if (input.id === "verify-file" && input.files.length) {
      verify(input.files[0]).finally(() => { input.value = ""; });
    } else if (input.dataset?.choose) showChosen();
    else if (input.matches?.("[data-format]")) {
      format = input.value;
      try { localStorage.setItem(FORMAT, format); } catch { /* not allowed */ }
      showFormat();
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
      else { goTo(3); verify(event.dataTransfer.files[0]); }
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
  const QUIET_MILLISECONDS = 20000;
  let nextLook = null;
  let looking = false;
  async function lookAfter() {
    if (looking) return;
    looking = true;
    clearTimeout(nextLook);
    try {
      const facts = await send("/private/session", "", {});
      words = facts.words;
      if (words.language) document.documentElement.lang = words.language; // Gradio knows fewer languages
      takesReports = facts.reports;
      const isNew = boot !== null && (boot !== facts.boot || !facts.known);
      const wasLost = lost;
      boot = facts.boot;
      lost = false;
      // A stream of news can die without a word; then the page asks again.
      const isStuck = newest.active && Date.now() - newest.at > QUIET_MILLISECONDS;
      if (isStuck) { newest.at = Date.now(); regions.who?.trigger("tick"); }
      if (isNew || wasLost) {
        const again = isNew && !facts.photos ? [...given.values(), ...unsent] : unsent;
        unsent = [];
        if (isNew) { given.clear(); seen.clear(); }
        if (!isNew) {
          say("");
          announce(words[again.length ? "net.sent_again" : "net.back"]);
        }
        regions.who?.trigger("tick");
        const back = again.length ? await addPhotos(again) : null;
        if (isNew) say(words[back?.id ? "net.kept_photos" : "net.restarted"]);
      }
    } catch {
      if (!lost) say(words["net.lost"] || "");
      lost = true;
    }
    looking = false;
    nextLook = setTimeout(lookAfter, lost ? 2000 : newest.active ? 5000 : 15000);
  }
  addEventListener("online", lookAfter);
  addEventListener("offline", () => { lost = true; say(words["net.lost"] || ""); });

  function applyTheme() {
    try {
      const theme = localStorage.getItem(THEME);
      if (!theme) return;
      document.body.classList.toggle("dark", theme === "dark");
      document.body.classList.toggle("light", theme === "light");
    } catch { /* not allowed */ }
  }

  // What was typed before a reload is typed again.
  function restoreDraft(tries) {
    const box = document.querySelector("#prompt textarea");
    let draft = "";
    try { draft = sessionStorage.getItem(DRAFT) || ""; } catch { return; }
    if (box && draft && !box.value) fill("#prompt textarea", draft);
    if (!box && tries) setTimeout(() => restoreDraft(tries - 1), 250);
    if (box) applyTheme(); // Gradio follows the system when it starts
  }

  function begin() {
    document.body.append(voice, banner);
    applyTheme();
    restoreDraft(120);
    lookAfter();
  }
  if (document.body) begin(); else addEventListener("DOMContentLoaded", begin);
  if (window.imagineRegions) window.imagineBind();
})();
