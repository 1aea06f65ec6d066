// The offices: light or dark, copying, keys for buttons, forms that answer as one types.
(() => {
  "use strict";
  const root = document.documentElement;
  const THEME = "imagine:theme";
  const setTheme = (name) => {
    document.body.classList.toggle("dark", name === "dark");
    document.body.classList.toggle("light", name === "light");
  };
  const known = localStorage.getItem(THEME);
  if (known) setTheme(known);
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-theme]")) {
      const dark = document.body.classList.contains("dark") || (
        !document.body.classList.contains("light") && matchMedia("(prefers-color-scheme: dark)").matches);
      localStorage.setItem(THEME, dark ? "light" : "dark");
      setTheme(dark ? "light" : "dark");
    }
    const copy = event.target.closest("[data-copy]");
    if (copy) copyText(copy);
    const unblur = event.target.closest("[data-unblur]");
    if (unblur) showPlain(unblur);
  });

  const said = () => document.getElementById("said");
  function say(text, kind) {
    const note = document.createElement("p");
    note.className = `note ${kind || "good"}`;
    note.textContent = text;
    said().replaceChildren(note);
  }

  async function copyText(button) {
    const text = document.getElementById(button.dataset.copy).textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = button.dataset.done;
    } catch {
      const range = document.createRange();
      range.selectNodeContents(document.getElementById(button.dataset.copy));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
    }
  }

  // A picture in grey and blurred until somebody asks; asking is on record before it is shown.
  async function showPlain(button) {
    const image = document.getElementById(button.dataset.unblur);
    button.disabled = true;
    const answer = await fetch(button.dataset.href, { method: "POST", credentials: "same-origin" });
    if (!answer.ok) {
      const facts = await answer.json().catch(() => ({}));
      say(facts.message || answer.statusText, "bad");
      button.disabled = false;
      return;
    }
    image.src = URL.createObjectURL(await answer.blob());
    image.classList.remove("veiled");
    button.hidden = true;
    image.focus();
  }

  // One key, one decision: a single letter presses the button that names it, unless one is typing.
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) return;
    const button = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
    if (!button || button.disabled || button.hidden) return;
    event.preventDefault();
    button.focus();
    button.click();
  });

  // Snippets that follow the form beside them.
  const form = document.querySelector("form[data-snippets]");
  function quoted(text) { return JSON.stringify(text); }
  function fill() {
    const given = Object.fromEntries(new FormData(form));
    for (const block of document.querySelectorAll("[data-template]")) {
      block.textContent = block.dataset.template.replace(/\{\{(\w+)(:\w+)?\}\}/g, (_, name, how) => {
        const value = (given[name] ?? "").toString();
        if (how === ":shell") return quoted(value).replaceAll("'", "'\\''");
        return how === ":text" ? quoted(value) : value || "0";
      });
    }
  }
  if (form) {
    form.addEventListener("input", fill);
    form.addEventListener("submit", (event) => event.preventDefault());
    fill();
  }

  // Verify: the file goes to the server, which keeps nothing, and its answer stands below.
  const input = document.querySelector("[data-verify]");
  async function verify(file) {
    const result = document.getElementById("verify-result");
    result.textContent = result.dataset.looking;
    try {
      const headers = { "X-Name": encodeURIComponent(file.name || "") };
      const answer = await fetch("/verify/picture", { method: "POST", body: file, headers });
      const facts = await answer.json().catch(() => ({}));
      if (!answer.ok) throw new Error(facts.message || result.dataset.failed);
      result.innerHTML = facts.html; // made by the server, every word escaped there
    } catch (error) {
      result.textContent = error instanceof TypeError ? result.dataset.failed : error.message;
    }
  }
  if (input) {
    input.addEventListener("change", () => { if (input.files.length) verify(input.files[0]); });
    for (const kind of ["dragover", "drop"]) {
      document.addEventListener(kind, (event) => {
        event.preventDefault(); // a file dropped beside the box must not replace the page
        const inside = event.target.closest?.("[data-verify-drop]");
        if (kind === "drop" && inside && event.dataTransfer.files.length) verify(event.dataTransfer.files[0]);
      });
    }
  }

  // After a decision the next thing waits: begin there.
  const first = document.querySelector("[data-begin]");
  if (first && !said()?.textContent.trim()) first.focus({ preventScroll: true });
  root.classList.add("ready");
})();
