// Stands in for Immich's web app: its two menus in the recorded structure, and how the app handles keys, clicks and an
// order that was aborted. `app` is for the tests: `app.said` are the toasts, `app.selected` the photos that are chosen.
const ICONS = {
  "refresh-faces":
    "M13 3C16.88 3 20 6.14 20 10C20 12.8 18.37 15.19 16 16.31V21H9V18H8C6.89 18 6 17.11 6 16V13H4.5C4.08 13 3.84 12.5 4.08 12.19L6 9.66",
  "refresh-metadata":
    "M6 12.45V9.64C7.47 10.47 9.61 11 12 11S16.53 10.47 18 9.64V12.03C18.17 12 18.33 12 18.5 12C19 12 19.5 12.07 20 12.18V7",
  "regenerate-thumbnail": "M14.68 13.25C13.45 14.15 12.54 15.47 12.18 17H6.5L9.25 13.47L11.21 15.83L13.96 12.29L14.68 13.25",
  download: "M5,20H19V18H5M19,9H15V3H9V9H5L12,16L19,9Z",
};
const SVG = "http://www.w3.org/2000/svg";
let ids = 0;

const app = { said: [], selected: [], photo: "", open, render };
globalThis.app = app;

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  made.append(...children);
  return made;
}

function item(name, close, photos) {
  const icon = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  icon.setAttribute("width", 18);
  icon.append(path);
  const text = element("div", { class: "w-full" }, element("div", { class: "flex justify-between" }, ` ${name} `));
  const made = element("li", { id: `id-${++ids}`, role: "menuitem", class: "w-full p-4 bg-slate-100" }, icon, text);
  made.addEventListener("click", () => {
    close();
    void order(name, photos());
  });
  return made;
}

/** Order a job as the app does: some time after the click, with a toast when it is done, and none for an abort. */
async function order(name, assetIds) {
  await new Promise((resolve) => setTimeout(resolve));
  try {
    const answer = await fetch("/api/assets/jobs", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ assetIds, name }),
    });
    app.said.push(answer.ok ? name : "error");
  } catch (error) {
    if (error.name !== "AbortError") {
      app.said.push("error");
    }
  }
  app.selected = [];
}

function menu(place, names, photos) {
  const list = element("ul", { id: `context-menu-id-${++ids}`, role: "menu", tabindex: -1, "aria-activedescendant": "" });
  const button = element("button", { "aria-haspopup": true, "aria-expanded": false }, "⋮");
  const close = () => {
    button.setAttribute("aria-expanded", false);
    list.setAttribute("aria-activedescendant", "");
    button.focus();
  };
  button.addEventListener("click", () => button.setAttribute("aria-expanded", true));
  list.append(...names.map((name) => (name === "hr" ? element("hr", {}) : item(name, close, photos))));
  const whole = element("div", {}, button, list);
  whole.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const active = list.getAttribute("aria-activedescendant");
    if (step) {
      const children = [...list.children].filter((child) => child.tagName !== "HR");
      const at = active ? children.findIndex((child) => child.id === active) : -1;
      button.setAttribute("aria-expanded", true);
      list.setAttribute("aria-activedescendant", children[(at + step + children.length) % children.length].id);
      event.preventDefault();
    } else if (event.key === "Enter" && active) {
      list.querySelector(`#${active}`).click();
      event.preventDefault();
    }
  });
  document.querySelector(place).replaceChildren(whole);
}

/** Show both menus, as to the owner of the photos or to somebody else. */
function render({ owner = true } = {}) {
  const after = (...names) => (owner ? ["hr", ...names] : []);
  menu(
    "[data-testid=asset-viewer-navbar-actions]",
    ["download", ...after("refresh-faces", "refresh-metadata", "regenerate-thumbnail")],
    () => [app.photo],
  );
  menu(
    "#asset-selection-app-bar",
    ["download", ...after("regenerate-thumbnail", "refresh-metadata")],
    () => app.selected,
  );
}

/** Ask as the app does at its start, one after the other. */
async function open() {
  await fetch("/api/server/version");
  await fetch("/api/users/me");
  render();
}

await open();
