"use strict";
(() => {
  const SHOWN_MAX = 200000; // characters of an answer or stream that the page keeps
  const token = document.getElementById("token");
  const one = (root, selector) => root.querySelector(selector);
  const all = (root, selector) => [...root.querySelectorAll(selector)];

  for (const section of all(document, ".needs-script")) section.hidden = false;

  // -- the token: in this field, and nowhere else
  document.getElementById("token-form").addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("forget").addEventListener("click", () => { token.value = ""; token.focus(); });
  addEventListener("pagehide", () => { token.value = ""; });

  // -- open what the address names
  const openNamed = () => {
    const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (named instanceof HTMLDetailsElement) { named.open = true; named.scrollIntoView(); }
    for (const link of all(document, ".side li a")) {
      if (link.hash && link.hash === location.hash) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  addEventListener("hashchange", openNamed);
  openNamed();

  // -- the filter
  const filter = document.getElementById("filter");
  const applyFilter = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let any = false;
    for (const item of all(document, "[data-find]")) {
      const text = item.dataset.find.toLowerCase();
      item.hidden = !words.every((word) => text.includes(word));
      any ||= !item.hidden;
    }
    for (const group of all(document, "[data-tag]")) group.hidden = all(group, "[data-find]").every((item) => item.hidden);
    document.body.classList.toggle("filtered-empty", !any);
  };
  filter.addEventListener("input", applyFilter);
  addEventListener("keydown", (event) => {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? "");
    if (event.key === "/" && !typing) { event.preventDefault(); filter.focus(); }
    if (event.key === "Escape" && document.activeElement === filter) { filter.value = ""; applyFilter(); filter.blur(); }
  });

  // -- one request, as the form says
  const read = (form) => {
    const query = new URLSearchParams();
    const headers = {};
    let path = form.dataset.path;
    for (const input of all(form, "[data-in]")) {
      if (input.value === "") continue;
      if (input.dataset.in === "path") path = path.replace(`{${input.name}}`, encodeURIComponent(input.value));
      if (input.dataset.in === "query") query.append(input.name, input.value);
      if (input.dataset.in === "header") headers[input.name] = input.value;
    }
    const body = one(form, "textarea")?.value;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    return { method: form.dataset.method, url: path + (query.size ? `?${query}` : ""), headers, body };
  };

  const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const curl = (form) => {
    const { method, url, headers, body } = read(form);
    const words = ["curl", ...("streams" in form.dataset ? ["-N"] : []), ...(method === "GET" ? [] : ["-X", method])];
    const plain = /^[\w./:-]+$/.test(url);
    const lines = [`${words.join(" ")} ${plain ? location.origin + url : quoted(location.origin + url)}`];
    if ("auth" in form.dataset) lines.push('-H "Authorization: Bearer $CORRAL_TOKEN"');
    for (const [name, value] of Object.entries(headers)) lines.push(`-H ${quoted(`${name}: ${value}`)}`);
    if (body !== undefined) lines.push(`--data-binary ${quoted(compact(body))}`);
    return lines.join(" \\\n  ");
  };
  const compact = (text) => { try { return JSON.stringify(JSON.parse(text)); } catch { return text; } };
  const pretty = (text) => { try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; } };

  // -- sending it
  const show = (form, status, good, rest) => {
    const output = one(form, "output");
    const strong = document.createElement("strong");
    strong.className = good ? "good" : "bad";
    strong.textContent = status;
    output.replaceChildren(strong, ` ${rest}`);
  };

  const follow = async (response, result) => {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      result.textContent = (result.textContent + value).slice(-SHOWN_MAX);
      result.scrollTop = result.scrollHeight;
    }
  };

  const send = async (form) => {
    const request = read(form);
    const result = one(form, ".result");
    const stop = one(form, "[data-stop]");
    const go = one(form, ".go");
    const area = one(form, "textarea");
    if (area) {
      try { JSON.parse(area.value); area.removeAttribute("aria-invalid"); }
      catch (error) { area.setAttribute("aria-invalid", "true"); show(form, "Not sent.", false, `The body is not JSON: ${error.message}`); return; }
    }
    if ("auth" in form.dataset && token.value.trim()) request.headers.Authorization = `Bearer ${token.value.trim()}`;
    const abort = new AbortController();
    stop.onclick = () => abort.abort();
    stop.hidden = false;
    go.disabled = true;
    result.hidden = true;
    result.textContent = "";
    show(form, "…", true, "");
    const began = performance.now();
    try {
      const response = await fetch(request.url, {
        method: request.method, headers: request.headers, body: request.body, signal: abort.signal,
        credentials: "omit", cache: "no-store", redirect: "error", referrerPolicy: "no-referrer",
      });
      const type = response.headers.get("content-type") ?? "";
      const facts = () => `${response.statusText} in ${Math.round(performance.now() - began)} ms, request ${response.headers.get("x-request-id") ?? "unknown"}`;
      show(form, response.status, response.ok, facts());
      result.hidden = false;
      if (type.startsWith("text/event-stream")) {
        await follow(response, result);
        show(form, response.status, response.ok, "the stream has ended");
      } else {
        const text = await response.text();
        result.textContent = (type.includes("json") ? pretty(text) : text).slice(0, SHOWN_MAX);
        result.hidden = !text;
        show(form, response.status, response.ok, facts());
      }
    } catch (error) {
      if (error.name === "AbortError") show(form, "Stopped.", true, "");
      else show(form, "No answer.", false, error.message);
    } finally {
      stop.hidden = true;
      go.disabled = false;
    }
  };

  for (const form of all(document, "form.try")) {
    const shell = one(form.closest(".inside"), "[data-curl]");
    const refresh = () => { shell.textContent = curl(form); };
    form.addEventListener("input", refresh);
    form.addEventListener("submit", (event) => { event.preventDefault(); void send(form); });
    refresh();
  }

  // -- copying
  for (const button of all(document, "[data-copy]")) {
    const code = one(button.parentElement, "code");
    button.hidden = false;
    button.addEventListener("click", async () => {
      try { await navigator.clipboard.writeText(code.textContent); button.textContent = "Copied"; }
      catch { getSelection().selectAllChildren(code); button.textContent = "Selected"; }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
})();
