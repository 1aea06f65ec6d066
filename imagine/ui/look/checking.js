// The camera check: asks for one pose after the other, takes pictures all the while, sends them
// together. They are kept in this page's memory only, and dropped when an answer is there.
(() => {
  "use strict";
  const box = document.querySelector("[data-check]");
  if (!box) return;
  const words = JSON.parse(box.dataset.words);
  const person = box.dataset.check;
  const WIDTH = 480; // pixels of a picture that is sent; faces are found on no more than that
  const QUALITY = 0.8;
  const SHORTEST_MILLISECONDS = 100; // between two pictures: ten a second at most
  const LEAST_PICTURES = 5; // of a pose: a slow device stays with it for longer, or a turn is a jump
  const SHARE_OF_TIME = 0.75; // of the time there is; the rest is for sending
  const most = Number(box.dataset.mostFrames) - 10;

  const video = box.querySelector("video");
  const stage = box.querySelector(".stage");
  const asks = box.querySelector(".asks");
  const answer = box.querySelector(".answer");
  const bar = box.querySelector(".check-bar");
  const after = box.querySelector("[data-does-after]");
  const options = box.querySelector("[data-options]");
  const button = (name) => box.querySelector(`[data-does="${name}"]`);
  let stream = null;
  let run = null; // the check under way: {stopped: why, or ""}

  // What can be pressed -------------------------------------------------------------------------
  function offer(...names) {
    for (const name of ["camera", "begin", "stop", "off"]) button(name).hidden = !names.includes(name);
    options.hidden = names.includes("stop") || !names.length;
  }
  const press = {
    camera: turnOn,
    begin: check,
    stop: () => { if (run) run.stopped = "stopped"; },
    off: () => { turnOff(); asks.textContent = ""; offer("camera"); button("camera").focus(); },
  };
  for (const [name, act] of Object.entries(press)) button(name).addEventListener("click", act);
  addEventListener("keydown", (event) => { if (event.key === "Escape") press.stop(); });
  document.addEventListener("visibilitychange", () => { if (document.hidden && run) run.stopped = "hidden"; });
  addEventListener("pagehide", turnOff);

  function say(text, kind) {
    answer.hidden = !text;
    answer.className = `answer note ${kind || "plain"}`;
    answer.textContent = text;
    if (text) answer.focus();
  }

  // Camera --------------------------------------------------------------------------------------
  async function turnOn() {
    say("");
    if (!navigator.mediaDevices?.getUserMedia) return say(words["camera.insecure"], "bad");
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        video: { width: { ideal: 640 }, height: { ideal: 480 }, facingMode: "user" }, audio: false });
    } catch (error) {
      const why = { NotAllowedError: "denied", NotFoundError: "none", OverconstrainedError: "none" }[error.name];
      return say(words[`camera.${why || "busy"}`], "bad");
    }
    stream.getVideoTracks()[0].addEventListener("ended", () => { if (run) run.stopped = "hidden"; });
    video.srcObject = stream;
    await video.play();
    box.classList.add("live");
    asks.textContent = words.ready;
    offer("begin", "off");
    button("begin").focus();
  }
  function turnOff() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    video.srcObject = null;
    box.classList.remove("live");
  }

  // A tone for each pose: high for straight on, lower and from its side for a turn.
  let audio = null;
  function tone(pose) {
    if (!box.querySelector("[data-tone]").checked) return;
    try {
      audio = audio || new AudioContext();
      const at = audio.currentTime;
      const voice = audio.createOscillator();
      const loud = audio.createGain();
      const side = audio.createStereoPanner();
      voice.frequency.value = pose === "ahead" ? 880 : 587;
      side.pan.value = { left: -0.9, right: 0.9 }[pose] || 0;
      loud.gain.setValueAtTime(0.12, at);
      loud.gain.exponentialRampToValueAtTime(0.001, at + 0.25);
      voice.connect(loud).connect(side).connect(audio.destination);
      voice.start(at);
      voice.stop(at + 0.25);
      navigator.vibrate?.(pose === "ahead" ? 60 : [60, 60, 60]);
    } catch { /* no sound here; the words are enough */ }
  }

  // The check -----------------------------------------------------------------------------------
  const pause = (milliseconds) => new Promise((done) => setTimeout(done, Math.max(0, milliseconds)));
  const canvas = document.createElement("canvas");
  function picture() {
    canvas.width = WIDTH;
    canvas.height = Math.round((WIDTH * video.videoHeight) / video.videoWidth);
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height); // not mirrored
    return new Promise((done) => canvas.toBlob(done, "image/jpeg", QUALITY));
  }
  function show(share) {
    const percent = Math.round(100 * share);
    bar.setAttribute("aria-valuenow", percent);
    box.style.setProperty("--done", percent);
  }

  async function check() {
    if (!stream) return turnOn(); // the camera went off meanwhile
    say("");
    after.hidden = true;
    offer();
    const mine = run = { stopped: "" };
    let told = null;
    try {
      told = await post("begin", new URLSearchParams({ person }));
    } catch (error) {
      return end(error instanceof TypeError ? words.net : error.message, "bad");
    }
    const late = performance.now() + told.seconds_left * 1000;
    offer("stop");
    button("stop").focus();
    bar.hidden = false;
    const frames = await takePictures(told, mine);
    if (mine.stopped) return end(words[mine.stopped], "plain");
    offer();
    stage.dataset.pose = "";
    asks.textContent = words.sending;
    await send(told, frames, late);
  }

  async function takePictures(told, mine) {
    const slow = box.querySelector("[data-slow]").checked;
    const each = 1000 * (slow ? told.slow_seconds_each : told.seconds_each);
    const steps = told.poses.length;
    const apart = Math.max(SHORTEST_MILLISECONDS, (each * steps) / most);
    const latest = performance.now() + told.seconds_left * 1000 * SHARE_OF_TIME;
    const frames = [];
    for (let step = 0; step < steps; step += 1) {
      ask(told.poses[step], step + 1, steps);
      const begun = performance.now();
      for (let taken = 0; !mine.stopped && frames.length < most; taken += 1) {
        const now = performance.now();
        const isSeen = taken >= LEAST_PICTURES || now > latest;
        if (isSeen && now - begun >= each) break;
        show((step + Math.min(1, (now - begun) / each)) / steps);
        frames.push(await picture());
        await pause(now + apart - performance.now());
      }
    }
    return frames;
  }

  function ask(pose, step, steps) {
    stage.dataset.pose = pose;
    asks.textContent = words[`pose.${pose}`];
    bar.setAttribute("aria-valuetext", words.step.replace("{step}", step).replace("{steps}", steps));
    tone(pose);
  }

  // A lost network is waited for as long as the check is open.
  async function send(told, frames, late) {
    const form = new FormData();
    for (const [name, value] of [["person", person], ["challenge", told.id], ["nonce", told.nonce]])
      form.append(name, value);
    for (const frame of frames) form.append("frames", frame, "frame.jpg");
    for (;;) {
      try {
        const facts = await post("answer", form);
        return facts.passed ? passed(facts.message) : end(facts.message, "bad");
      } catch (error) {
        if (!(error instanceof TypeError)) return end(error.message, "bad");
        if (performance.now() > late) return end(words["code.late"], "bad");
        asks.textContent = words.away;
        await pause(1500);
      }
    }
  }

  async function post(what, body) {
    const reply = await fetch(`/camera-check/${what}`, { method: "POST", body, credentials: "same-origin" });
    const facts = await reply.json().catch(() => ({}));
    if (!reply.ok) throw new Error(facts.message || words.net);
    return facts;
  }

  function end(text, kind) {
    run = null;
    stage.dataset.pose = "ahead";
    asks.textContent = "";
    bar.hidden = true;
    show(0);
    button("begin").textContent = words.again;
    if (stream) offer("begin", "off"); else offer("camera");
    say(text, kind);
  }
  function passed(text) {
    end(text, "good");
    turnOff();
    asks.textContent = "";
    offer();
    options.hidden = true;
    stage.hidden = true;
    after.hidden = false;
  }
})();
