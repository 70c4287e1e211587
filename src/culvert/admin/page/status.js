// The status page: asks /status every other second and shows it.
//
// Whatever is shown is set as text, never as markup: names, reasons and addresses may be a peer's. The token
// is kept for this tab alone (sessionStorage) and sent as a header: a cookie, or the password that a browser
// remembers, would go along with what other pages ask for.
"use strict";

(() => {
  const INTERVAL = 2000;
  const PATIENCE = 5000;
  const SAMPLES = 60;
  const LISTED = 50;
  const SHOWN_AT_ONCE = 8; // services; beyond that they can be filtered
  const SOON = 30; // days, as in the log's warning
  const FAILED = ["TLS failed", "negotiation failed", "reset"]; // ways in which a connection ends
  const KEY = "culvert-admin-token";
  const SVG = "http://www.w3.org/2000/svg";

  const at = (id) => document.getElementById(id);
  let token = null;
  let timer = null;
  let asking = false;
  let paused = false;
  let lastAnswer = null; // Unix time, by the browser's clock
  let lastStatus = null;
  let total = null;
  let shownFailures = "";
  let shownCertificates = "";
  const cards = new Map();

  // --- making and changing elements ---

  function make(name, text, className) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function say(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function mark(element, className) {
    if (element.className !== className) element.className = className;
  }

  // A row of a table: its cells are lines of text, each with a class; the one called `header` says whose it is.
  function row(header, ...cells) {
    const made = make("tr");
    cells.forEach((lines, index) => {
      const cell = make(index === header ? "th" : "td");
      if (index === header) cell.scope = "row";
      for (const [text, className] of lines) {
        cell.append(make("span", text, `block ${className || ""}`.trim()));
      }
      made.append(cell);
    });
    return made;
  }

  class Facts {
    constructor(list, names) {
      this.values = names.map((name) => {
        const group = make("div");
        const value = make("dd", "–");
        group.append(make("dt", name), value);
        list.append(group);
        return value;
      });
    }

    show(...texts) {
      texts.forEach((text, index) => say(this.values[index], text));
    }
  }

  // --- numbers as people read them ---

  function bytes(number) {
    const units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let unit = 0;
    while (number >= 999.5 && unit < units.length - 1) {
      number /= 1000;
      unit += 1;
    }
    return `${unit && number < 9.95 ? number.toFixed(1) : Math.round(number)} ${units[unit]}`;
  }

  function duration(seconds) {
    const days = Math.floor(seconds / 86400);
    const hours = Math.floor(seconds / 3600) % 24;
    const minutes = Math.floor(seconds / 60) % 60;
    if (days) return `${days} d ${hours} h`;
    if (hours) return `${hours} h ${minutes} min`;
    return minutes ? `${minutes} min` : `${Math.max(0, Math.floor(seconds))} s`;
  }

  function moment(seconds) {
    const date = new Date(seconds * 1000);
    const today = date.toDateString() === new Date().toDateString();
    return today ? date.toLocaleTimeString() : date.toLocaleString();
  }

  const count = (number, one, more) => `${number} ${number === 1 ? one : more || `${one}s`}`;
  const sum = (numbers) => Object.values(numbers).reduce((all, one) => all + one, 0);

  // --- charts ---

  class Chart {
    constructor(parent, title, kinds) {
      const figure = make("figure");
      this.svg = document.createElementNS(SVG, "svg");
      this.svg.setAttribute("viewBox", "0 0 100 40");
      this.svg.setAttribute("preserveAspectRatio", "none");
      this.svg.setAttribute("role", "img");
      this.title = title;
      this.lines = kinds.map((kind) => {
        const line = document.createElementNS(SVG, "polyline");
        line.setAttribute("class", kind);
        this.svg.append(line);
        return line;
      });
      const caption = make("figcaption");
      this.words = kinds.map((kind) => {
        const word = make("span", "–", `block key ${kind}`);
        caption.append(word);
        return word;
      });
      this.most = make("span", "", "block faint");
      caption.append(this.most);
      figure.append(this.svg, caption);
      parent.append(figure);
    }

    // `series`: for each line its samples, the newest last.
    draw(series, texts, show) {
      const top = Math.max(1, ...series.flat());
      series.forEach((samples, index) => {
        const first = SAMPLES - samples.length;
        const points = samples.map((value, number) => {
          const x = ((first + number) * 100) / (SAMPLES - 1);
          return `${x.toFixed(1)},${(38.5 - (value * 37) / top).toFixed(1)}`;
        });
        this.lines[index].setAttribute("points", points.join(" "));
        say(this.words[index], texts[index]);
      });
      const most = `most ${show(Math.max(0, ...series.flat()))}`;
      say(this.most, most);
      this.svg.setAttribute("aria-label", `${this.title}: ${texts.join(", ")}; ${most}`);
    }
  }

  class Charts {
    constructor(parent) {
      this.flow = new Chart(parent, "Throughput", ["tls", "plain"]);
      this.open = new Chart(parent, "Connections", ["open"]);
      this.forget();
    }

    forget() {
      this.before = null;
      this.toTls = [];
      this.toPlain = [];
      this.opened = [];
    }

    add(now, toTls, toPlain, open) {
      const before = this.before;
      if (before && (toTls < before.toTls || toPlain < before.toPlain || now - before.now > 5 * INTERVAL)) {
        this.forget(); // it began anew, or nobody has looked for long
      } else if (before && now > before.now) {
        const seconds = (now - before.now) / 1000;
        this.toTls.push((toTls - before.toTls) / seconds);
        this.toPlain.push((toPlain - before.toPlain) / seconds);
      }
      this.opened.push(open);
      this.before = { now, toTls, toPlain };
      for (const series of [this.toTls, this.toPlain, this.opened]) {
        if (series.length > SAMPLES) series.shift();
      }
      const rate = (series) => (series.length ? `${bytes(series[series.length - 1])}/s` : "–");
      const texts = [`to TLS ${rate(this.toTls)}`, `to plain ${rate(this.toPlain)}`];
      this.flow.draw([this.toTls, this.toPlain], texts, (most) => `${bytes(most)}/s`);
      this.open.draw([this.opened], [`${open} open`], (most) => String(most));
    }
  }

  // --- services ---

  class Card {
    constructor(service) {
      this.article = make("article");
      const heading = make("h3", service.name);
      this.state = make("span", "", "good");
      const line = make("p");
      line.append(this.state, " – ", make("span", Card.kind(service), "faint"));
      this.targets = make("ul");
      const charts = make("div", undefined, "charts");
      const facts = make("dl", undefined, "facts");
      this.article.append(heading, line, this.targets, charts, facts);
      this.charts = new Charts(charts);
      const inside = service.vpn ? ["Peers over TLS", "over DTLS", "Packets dropped"] : [];
      const names = ["Connections", "Handshakes", "Resumed", "Failed", "Refused", "To TLS", "To plain", ...inside];
      this.facts = new Facts(facts, names);
      this.name = service.name.toLowerCase();
      this.shownTargets = "";
    }

    static kind(service) {
      const words = [service.client ? "client" : "server"];
      if (service.protocol) words.push(service.protocol);
      if (service.accept) words.push(`on ${service.accept}`);
      if (service.exec) words.push(`runs ${service.exec}`);
      if (service.vpn) words.push(`VPN ${service.vpn.interface}`);
      return words.join(", ");
    }

    show(service, now) {
      say(this.state, service.live ? "Live" : "No live target");
      mark(this.state, service.live ? "good" : "bad");
      this.showTargets(service.targets);
      this.charts.add(now, service.bytes.to_tls, service.bytes.to_plain, service.connections.open);
      this.facts.show(
        String(service.connections.total),
        String(service.handshakes.total),
        String(service.handshakes.resumed),
        String(FAILED.reduce((all, end) => all + (service.ended[end] || 0), 0)),
        String(sum(service.refused)),
        bytes(service.bytes.to_tls),
        bytes(service.bytes.to_plain),
        ...(service.vpn ? [service.vpn.peers.tls, service.vpn.peers.dtls, sum(service.vpn.dropped)].map(String) : []),
      );
    }

    showTargets(targets) {
      const shown = JSON.stringify(targets);
      if (shown === this.shownTargets) return;
      this.shownTargets = shown;
      this.targets.replaceChildren(...targets.map((target) => {
        const item = make("li", `to ${target.target}: `);
        const known = target.usable === null ? "not tried yet" : `${target.usable} of ${target.addresses} usable`;
        item.append(make("span", target.live ? known : `dead, ${known}`, target.live ? "faint" : "bad"));
        return item;
      }));
    }
  }

  function showServices(services, now) {
    const names = new Set(services.map((service) => service.name));
    for (const [name, card] of cards) {
      if (!names.has(name)) {
        card.article.remove();
        cards.delete(name);
      }
    }
    for (const service of services) {
      let card = cards.get(service.name);
      const made = JSON.stringify([service.accept, service.exec, service.client, service.protocol, service.vpn?.interface]);
      if (card && card.made !== made) {
        card.article.remove();
        card = undefined;
      }
      if (!card) {
        card = new Card(service);
        card.made = made;
        cards.set(service.name, card);
        at("services").append(card.article);
      }
      card.show(service, now);
    }
    at("filter").hidden = services.length <= SHOWN_AT_ONCE;
    filter();
  }

  function filter() {
    const wanted = at("filter").hidden ? "" : at("name").value.trim().toLowerCase();
    for (const card of cards.values()) card.article.hidden = !card.name.includes(wanted);
  }

  // --- the tables ---

  function fill(table, none, rows) {
    at(table).tBodies[0].replaceChildren(...rows);
    at(table).hidden = !rows.length;
    at(none).hidden = rows.length > 0;
  }

  function showFailures(failures) {
    const shown = JSON.stringify(failures);
    if (shown === shownFailures) return;
    shownFailures = shown;
    fill("failures", "no-failures", failures.map((one) => row(
      1,
      [[moment(one.time)], ...(one.count > 1 ? [[`${one.count} times`, "faint"]] : [])],
      [[one.service], [one.peer, "faint"]],
      [[one.end, one.end === "refused" ? "warn" : "bad"], [one.reason]],
    )));
  }

  function left(days) {
    if (days < 0) return ["expired", "bad"];
    return [count(days, "day"), days < SOON ? "warn" : "good"];
  }

  function showCertificates(services) {
    const byIdentity = new Map(); // many services may have the same one
    for (const service of services) {
      for (const one of service.certificates) {
        const identity = JSON.stringify([one.subject, one.expires]);
        if (!byIdentity.has(identity)) byIdentity.set(identity, { ...one, services: new Set() });
        byIdentity.get(identity).services.add(service.name);
      }
    }
    const found = [...byIdentity.values()].map((one) => ({ ...one, services: [...one.services] }));
    found.sort((one, other) => one.expires - other.expires);
    const shown = JSON.stringify(found);
    if (shown === shownCertificates) return;
    shownCertificates = shown;
    fill("certificates", "no-certificates", found.map((one) => row(
      1,
      [left(one.days)],
      [[one.services.join(", ")], [one.subject, "faint"]],
      [[new Date(one.expires * 1000).toLocaleDateString(), ""]],
    )));
  }

  function leadsTo(connection) {
    const inside = connection.vpn ? connection.vpn.addresses : [];
    const words = [connection.target, inside.length ? `VPN ${inside.join(" ")}` : null];
    return words.filter(Boolean).join(", ") || "no target yet";
  }

  function showConnections(found) {
    const rows = found.connections.map((one) => row(
      0,
      [[one.service], [one.peer, "faint"]],
      [[leadsTo(one)], ...(one.sni ? [[`name ${one.sni}`, "faint"]] : [])],
      [
        [`${duration(one.seconds)}, ${bytes(one.to_tls)} to TLS, ${bytes(one.to_plain)} to plain`],
        [one.tls ? `${one.tls.version}, ${one.tls.cipher}` : "being set up", "faint"],
      ],
    ));
    at("connections").tBodies[0].replaceChildren(...rows);
    const some = found.total > rows.length ? `${rows.length} of ${found.total}` : count(found.total, "connection");
    say(at("listed-note"), found.complete ? some : `${some}; a worker did not answer`);
  }

  // --- the whole ---

  function showState(state, word, notes) {
    at("state").dataset.state = state;
    say(at("word"), word);
    say(at("notes"), notes);
    document.title = `${word} – Culvert`;
    at("main").classList.toggle("stale", state === "bad" && word === "No answer");
  }

  function judge(status) {
    const open = status.services.reduce((all, one) => all + one.connections.open, 0);
    const failed = status.reloads.last_failed
      ? "The last reload failed, and the configuration before it goes on: the log says why."
      : "";
    if (status.draining) {
      return ["warn", "Stopping", `No new connection is taken; ${count(open, "is", "are")} still open. ${failed}`];
    }
    if (!status.ready) {
      const [first, ...others] = status.obstacles;
      const more = others.length ? ` (and ${others.length} more)` : "";
      return ["bad", "Not ready", `${first}${more}. ${failed}`];
    }
    if (failed) return ["warn", "Reload failed", failed];
    return ["good", "Serving", `${count(status.services.length, "service")}, ${count(status.workers, "worker")}.`];
  }

  let daemonFacts = null;

  function show(status, now) {
    if (lastStatus && lastStatus.since !== status.since) {
      for (const card of cards.values()) card.charts.forget();
      total.forget();
    }
    lastStatus = status;
    daemonFacts = daemonFacts
      || new Facts(at("daemon"), ["Runs for", "Workers", "Connections", "Reloads", "Workers replaced"]);
    total = total || new Charts(at("total"));
    const all = (number) => status.services.reduce((so, one) => so + number(one), 0);
    const { succeeded, failed } = status.reloads;
    say(at("version"), status.version);
    daemonFacts.show(
      duration(status.time - status.since),
      String(status.workers),
      String(all((one) => one.connections.total)),
      failed ? `${succeeded}, ${failed} failed` : String(succeeded),
      String(status.worker_restarts),
    );
    const [toTls, toPlain] = [all((one) => one.bytes.to_tls), all((one) => one.bytes.to_plain)];
    total.add(now, toTls, toPlain, all((one) => one.connections.open));
    showServices(status.services, now);
    showFailures(status.failures);
    showCertificates(status.services);
    showState(...judge(status));
    at("login").hidden = true;
    at("main").hidden = false;
    at("controls").hidden = false;
    at("forget").hidden = token === null;
  }

  // --- asking ---

  class Refusal extends Error {
    constructor(status, reason) {
      super(reason);
      this.status = status;
    }
  }

  async function ask(path) {
    const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
    const options = { headers, credentials: "omit", cache: "no-store", redirect: "error" };
    const answer = await fetch(path, { ...options, signal: AbortSignal.timeout(PATIENCE) });
    if (answer.ok) return answer.json();
    const reason = await answer.json().then((body) => body.error, () => "");
    throw new Refusal(answer.status, typeof reason === "string" ? reason : "");
  }

  function askForToken() {
    if (token !== null) say(at("wrong"), "This is not the token.");
    keep(null);
    at("main").hidden = true;
    at("controls").hidden = true;
    at("login").hidden = false;
    showState("waiting", "Token needed", "");
    at("token").focus();
  }

  function keep(found) {
    token = found;
    try {
      if (found === null) sessionStorage.removeItem(KEY);
      else sessionStorage.setItem(KEY, found);
    } catch {
      // a browser that stores nothing: it is kept until the page is left
    }
  }

  function unanswered(error) {
    const since = lastAnswer === null
      ? "Nothing has answered yet."
      : `The last answer came at ${moment(lastAnswer)}; what it said is below.`; // the same text, not read out again
    const why = error instanceof Refusal ? ` It said ${error.status}: ${error.message}.` : "";
    showState("bad", "No answer", since + why);
  }

  async function look() {
    clearTimeout(timer);
    timer = null;
    if (asking || paused || document.hidden) return;
    asking = true;
    try {
      const status = await ask("status");
      lastAnswer = Date.now() / 1000;
      show(status, performance.now());
      if (at("listed").open) showConnections(await ask(`connections?limit=${LISTED}`));
    } catch (error) {
      if (error instanceof Refusal && error.status === 401) {
        askForToken();
        return;
      }
      unanswered(error);
    } finally {
      asking = false;
    }
    if (!paused) timer = setTimeout(look, INTERVAL);
  }

  function start() {
    try {
      token = sessionStorage.getItem(KEY);
    } catch {
      token = null;
    }
    at("login").addEventListener("submit", (event) => {
      event.preventDefault();
      const found = at("token").value.trim();
      if (!/^[\x21-\x7e]+$/.test(found)) {
        say(at("wrong"), "A token is visible ASCII characters, without spaces.");
        return;
      }
      say(at("wrong"), "");
      at("token").value = "";
      keep(found);
      look();
    });
    at("forget").addEventListener("click", () => {
      keep(null);
      location.reload();
    });
    at("pause").addEventListener("click", () => {
      paused = !paused;
      at("pause").setAttribute("aria-pressed", String(paused));
      look();
    });
    at("name").addEventListener("input", filter);
    at("listed").addEventListener("toggle", look);
    document.addEventListener("visibilitychange", look);
    look();
  }

  start();
})();
