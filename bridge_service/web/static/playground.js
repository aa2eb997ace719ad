"use strict";

// The page of the playground. The server sends the whole state when the stream opens, and then what changes; a change may
// come twice. Texts reach the page as text nodes only.

const words = JSON.parse(document.body.dataset.words);
const { token, boot } = document.body.dataset;
const lang = document.documentElement.lang;
const BUBBLES = 300;
const LINES = 200;
const STEPS = ["open", "queued", "composing", "typing", "answered"];
const TICK = 100;
const TYPED = 2000;

const state = { chats: new Map(), messages: new Map(), turns: [], typing: [], paused: {}, bots: {}, broken: {}, postgresql: true, redis: true };
const cards = new Map();
let ahead = 0; // seconds by which the server's clock is ahead of the browser's
let lastLine = -1;
let shownMatch; // the conversation in the chat, undefined before the first
let planned = false;

const at = (id) => document.getElementById(id);
const now = () => Date.now() / 1000 + ahead;
const say = (word, values = {}) => words[word].replace(/{(\w+)}/g, (_, name) => values[name]);

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function show(element, visible) {
  element.hidden = !visible;
}

/** Show a line, or hide it without a text. */
function note(id, text) {
  show(at(id), Boolean(text));
  put(at(id), text || "");
}

function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString(lang);
}

// The stream

function listen() {
  const stream = new EventSource("/live");
  stream.onopen = () => show(at("offline"), false);
  stream.onmessage = (event) => apply(JSON.parse(event.data));
  stream.onerror = () => {
    show(at("offline"), true);
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 1000);
  };
}

function apply(change) {
  if (change.boot && change.boot !== boot) return location.reload(); // another demo, with another token
  ahead = change.now - Date.now() / 1000;
  for (const chat of change.chats || []) state.chats.set(chat.id, chat);
  for (const message of change.messages || []) hear(message);
  for (const line of change.lines || []) log(line);
  for (const name of ["turns", "typing", "unfinished", "ungrouped", "sum", "scene", "broken", "postgresql", "redis", "policy", "paused", "bots"]) {
    if (name in change) state[name] = change[name];
  }
  if (!planned) requestAnimationFrame(render);
  planned = true;
}

function hear(message) {
  const chat = state.messages.get(message.match) || new Map();
  state.messages.set(message.match, chat);
  if (chat.has(message.id)) return;
  chat.set(message.id, message);
  if (chat.size > BUBBLES) chat.delete(chat.keys().next().value);
  if (state.scene) follow(message.match);
  if (message.match === shownMatch) bubble(message);
}

// The chat

function follow(match) {
  const chat = state.chats.get(match);
  if (!chat) return;
  at("person").value = chat.person;
  at("bot").value = chat.bot;
}

function pair() {
  return { person: at("person").value, bot: at("bot").value };
}

/** The newest match of the chosen two, null if they have none. */
function chosenMatch() {
  const { person, bot } = pair();
  const found = [...state.chats.values()].filter((chat) => chat.person === person && chat.bot === bot);
  return found.length ? found[found.length - 1].id : null;
}

function bubble(message) {
  const box = at("chat");
  const low = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  const kind = message.bot ? "theirs" : "mine";
  const item = make("div", `bubble ${kind}${message.struck ? " struck" : ""}`);
  item.append(make(message.struck ? "s" : "span", "", message.text || (message.struck ? "…" : "")));
  item.append(make("time", "", [clock(message.at), words[message.why]].filter(Boolean).join(" · ")));
  box.append(item);
  while (box.children.length > BUBBLES) box.firstElementChild.remove();
  if (low) box.scrollTop = box.scrollHeight;
}

function renderChat() {
  const match = chosenMatch();
  if (match !== shownMatch) {
    shownMatch = match;
    at("chat").replaceChildren();
    if (match === null) at("chat").append(make("p", "empty", say("unmatched_pair", pair())));
    for (const message of (state.messages.get(match) || new Map()).values()) bubble(message);
    at("chat").scrollTop = at("chat").scrollHeight;
  } else if (match === null) {
    put(at("chat").firstElementChild, say("unmatched_pair", pair()));
  }
  at("text").placeholder = say("placeholder", pair());
  put(at("typing"), state.typing.includes(match) ? say("writes", pair()) : "");
  const { night, disclosure } = state.bots[pair().bot] || {};
  note("disclosure", disclosure && say("disclosure", { ...pair(), text: disclosure }));
  note("asleep", night && say("asleep", { ...pair(), hours: night }));
  for (const name of ["night", "day"]) show(document.querySelector(`[data-do=${name}]`), Boolean(night) === (name === "day"));
  const paused = state.paused[match];
  note("paused", paused !== undefined && say(paused ? "paused_until" : "paused_open", { ...pair(), time: clock(paused) }));
  show(document.querySelector("[data-do=resume]"), paused !== undefined);
  put(at("as-human"), say("as_human", pair()));
  const open = !isTour() && match !== null;
  const free = ["match", "night", "day"]; // without a match, too
  for (const button of document.querySelectorAll("[data-do]")) button.disabled = isTour() || !(open || free.includes(button.dataset.do));
  at("form").querySelector("button").disabled = !open;
}

// What carries it

function isTour() {
  return state.scene !== null;
}

function renderSettings() {
  for (const control of document.querySelectorAll("[data-set]")) {
    control.disabled = isTour();
    if (state.policy && document.activeElement !== control) control.value = state.policy[control.dataset.shows];
  }
}

function renderTop() {
  show(at("tour"), Boolean(state.scene));
  put(at("scene"), state.scene || "");
  show(at("stale"), !state.postgresql);
  for (const [name, value] of Object.entries(state.sum || {})) {
    put(at(`sum-${name}`), String(value));
    if (["lost", "twice", "undisclosed"].includes(name)) at(`sum-${name}`).parentElement.classList.toggle("wrong", value > 0);
  }
}

function renderChain() {
  const { broken } = state;
  const down = {
    postgresql: !state.postgresql || "postgresql" in broken ? "down" : "",
    redis: !state.redis || "redis" in broken ? "down" : "",
    scheduler: "scheduler" in broken ? "frozen" : "",
    worker: "worker" in broken ? "down" : "",
    model: "model" in broken ? "away" : "",
  };
  for (const [node, word] of Object.entries(down)) {
    const until = broken[node];
    const left = until ? ` ${Math.max(0, Math.ceil(until - now()))} ${words.seconds}` : "";
    at(`node-${node}`).classList.toggle("down", Boolean(word));
    put(at(`node-${node}`).querySelector(".state"), word ? words[until === 0 ? "again" : word] + left : words.well);
  }
  for (const button of document.querySelectorAll("[data-break]")) {
    button.disabled = isTour() || button.dataset.break in broken;
  }
}

// Turns

function makeCard(turn) {
  const item = make("li", "turn");
  item.dataset.turn = turn.id;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 36 36");
  svg.setAttribute("aria-hidden", "true");
  for (const name of ["", "fill"]) {
    const circle = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    for (const [key, value] of Object.entries({ cx: 18, cy: 18, r: 15, pathLength: 100, class: name })) {
      circle.setAttribute(key, value);
    }
    svg.append(circle);
  }
  const names = make("div", "names");
  names.append(make("span"), make("small"));
  const track = make("ol", "track");
  for (const step of STEPS) {
    const part = make("li", "", words[`step_${step}`]);
    part.append(make("span"));
    track.append(part);
  }
  item.append(svg, names, track);
  return item;
}

/** When each step began, and when the last one ended. */
function moments(turn) {
  return [turn.opened, turn.queued, turn.claimed, turn.typed, turn.ended];
}

function renderTurns() {
  const list = at("turns");
  const shown = new Set(state.turns.map((turn) => turn.id));
  for (const [id, card] of cards) {
    if (!shown.has(id)) {
      card.remove();
      cards.delete(id);
    }
  }
  if (state.turns.length && list.querySelector(".none")) list.replaceChildren();
  state.turns.forEach((turn, place) => {
    if (!cards.has(turn.id)) cards.set(turn.id, makeCard(turn));
    const card = cards.get(turn.id);
    if (list.children[place] !== card) list.insertBefore(card, list.children[place] || null);
    renderCard(card, turn);
  });
  const hidden = (state.unfinished || 0) - state.turns.filter((turn) => turn.ended === null).length;
  note("more", hidden > 0 && say("more", { count: hidden }));
  note("ungrouped", state.ungrouped > 0 && say("ungrouped", { count: state.ungrouped }));
}

function renderCard(card, turn) {
  const chat = state.chats.get(turn.match);
  const ended = turn.ended !== null;
  card.classList.toggle("ended", ended);
  const [who, what] = card.querySelector(".names").children;
  const both = chat && (turn.kind === "reply" ? [chat.person, chat.bot] : [chat.bot, chat.person]);
  put(who, both ? both.join(" → ") : "");
  const count = say(turn.messages === 1 ? "count_one" : "count_many", { count: turn.messages });
  const kind = turn.kind === "reply" ? count : words.opener;
  const why = turn.waits ? words.waits_model : words[`held_${turn.held}`] || words[`reason_${turn.reason}`] || turn.reason;
  put(what, turn.reason === "superseded" ? why : [kind, why].filter(Boolean).join(" · "));
  const begun = moments(turn);
  const here = ended ? STEPS.length - 1 : STEPS.indexOf(turn.state);
  [...card.querySelector(".track").children].forEach((part, step) => {
    const last = step === STEPS.length - 1;
    part.className = step < here ? (begun[step] === null ? "" : "past") : step > here ? "" : "here";
    if (ended && last) part.className = { answered: "end", dead: "wrong" }[turn.state] || "";
    if (last) put(part.firstChild, words[`step_${ended ? turn.state : "answered"}`]);
  });
  const ring = card.querySelector("svg");
  ring.setAttribute("class", `ring ${turn.state === "open" ? "" : { cancelled: "off", dead: "dead" }[turn.state] || "done"}`);
  tickCard(card, turn);
}

/** What moves with the clock alone: the ring of an open group, and the seconds of the present step. */
function tickCard(card, turn) {
  const begun = moments(turn);
  const here = turn.ended !== null ? STEPS.length - 1 : STEPS.indexOf(turn.state);
  if (turn.state === "open") {
    const share = Math.min(1, Math.max(0, (now() - turn.opened) / Math.max(0.001, turn.due - turn.opened)));
    card.querySelector(".fill").style.strokeDashoffset = String(100 * (1 - share));
  }
  [...card.querySelector(".track").children].forEach((part, step) => {
    let seconds = null;
    if (step === STEPS.length - 1) {
      if (turn.ended !== null) seconds = turn.ended - turn.opened;
    } else if (step <= here && begun[step] !== null) {
      const next = begun.slice(step + 1).find((moment) => moment !== null);
      seconds = (step === here ? now() : next) - begun[step];
    }
    const total = step === STEPS.length - 1 ? "Σ " : "";
    put(part.lastChild, seconds === null ? "" : `${total}${Math.max(0, seconds).toFixed(1)} ${words.seconds}`);
  });
}

// The processes' lines

function log(line) {
  if (line.n <= lastLine) return;
  lastLine = line.n;
  const box = at("log");
  const low = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  const item = make("div");
  item.append(make("span", "", `${line.at} ${line.by}`), line.text);
  box.append(item);
  while (box.children.length > LINES) box.firstElementChild.remove();
  if (low) box.scrollTop = box.scrollHeight;
}

function render() {
  planned = false;
  renderTop();
  renderChain();
  renderChat();
  renderTurns();
  renderSettings();
}

setInterval(() => {
  renderChain();
  for (const turn of state.turns) if (turn.ended === null && cards.has(turn.id)) tickCard(cards.get(turn.id), turn);
}, TICK);

// What the visitor does

async function act(asked) {
  let answer = { refused: "offline" };
  try {
    const headers = { "Content-Type": "application/json", "X-CSRF-Token": token };
    const response = await fetch("/act", { method: "POST", headers, body: JSON.stringify(asked) });
    answer = await response.json();
  } catch {
    // The demo is away, and what was asked for may not have happened.
  }
  if (asked.action !== "types") put(at("refused"), answer.refused ? words[`refused_${answer.refused}`] : "");
  return answer.refused ? null : answer;
}

let typed = 0;
let typing = null; // the app hears of the keys before the message, or the person would type on
at("text").addEventListener("input", () => {
  if (Date.now() - typed < TYPED || at("human").checked || isTour() || chosenMatch() === null) return;
  typed = Date.now();
  typing = act({ action: "types", match: chosenMatch() });
});

at("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = at("text").value;
  const match = chosenMatch();
  if (!text.trim() || match === null || isTour()) return;
  at("text").value = "";
  typed = 0;
  await typing;
  const human = String(at("human").checked);
  if ((await act({ action: "write", match, text, human })) === null && !at("text").value) at("text").value = text;
});

for (const button of document.querySelectorAll("[data-do]")) {
  button.addEventListener("click", () => act({ action: button.dataset.do, match: chosenMatch() || "", ...pair() }));
}
for (const button of document.querySelectorAll("[data-break]")) {
  button.addEventListener("click", () => act({ action: "break", what: button.dataset.break }));
}
for (const control of document.querySelectorAll("[data-set]")) {
  control.addEventListener("change", () => act({ action: "set", what: control.dataset.set, value: control.value }));
}
for (const id of ["person", "bot"]) at(id).addEventListener("change", render);
at("skip").addEventListener("click", () => {
  at("skip").disabled = true;
  act({ action: "skip" });
});

listen();
