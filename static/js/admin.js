// What the admin's theme leaves to a mouse: its menus, the list of pages on a phone and the switch of themes are elements
// without a role. Here they become buttons; a menu that the keyboard opens gets the focus, and gives it back.
// And icons are letters of a font, which nobody should be read where words stand beside them.
const PRESSABLE = "[x-on\\:click]:not(a[href], button, input, select, textarea, label, summary)";
const TOGGLES = /^(\w+) = !\1/;
const CHOOSES = /^(adminTheme = |switchTheme\()/;
const ICONS = ".material-symbols-outlined";
const LISTED_BESIDE = "sidebarDesktopOpen"; // which covers nothing, and stays
const LABELS = { sidebarDesktopOpen: "pages", sidebarMobileOpen: "pages", openRelatedWidgetWrapper: "more", openTheme: "theme" };

const menus = []; // [opener, the name of its state]
const alpine = () => window.Alpine; // which comes later

const isOpen = ([opener, name]) => Boolean(alpine().$data(opener)[name]);

function menuOf([, name]) {
  if (name === "sidebarMobileOpen") return document.getElementById("nav-sidebar");
  return [...document.querySelectorAll(`[x-show="${name}"]`)].find((each) => alpine().$data(each)[name]);
}

function close([opener, name]) {
  alpine().$data(opener)[name] = false;
}

function enter(menu) {
  alpine().nextTick(() => requestAnimationFrame(() => menuOf(menu)?.querySelector("a[href], button, [tabindex='0']")?.focus()));
}

function makeButton(element) {
  const does = element.getAttribute("x-on:click");
  const name = TOGGLES.exec(does)?.[1];
  if (!name && !CHOOSES.test(does)) return;
  const menu = [element, name];
  element.tabIndex = 0;
  element.setAttribute("role", "button");
  const label = document.querySelector("meta[name='admin-labels']")?.dataset[LABELS[name]];
  if (label) element.setAttribute("aria-label", label);
  element.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    element.click();
    if (name && name !== LISTED_BESIDE && isOpen(menu)) enter(menu);
  });
  if (!name) return;
  alpine().effect(() => element.setAttribute("aria-expanded", isOpen(menu)));
  if (name !== LISTED_BESIDE) menus.push(menu);
}

function hideIcon(icon) {
  const holder = icon.parentElement.closest("a, button, [role='button']");
  const icons = holder ? [...holder.querySelectorAll(ICONS)].map((each) => each.textContent).join("") : "";
  if (holder && holder.textContent.replace(/\s/g, "") !== icons.replace(/\s/g, "")) icon.setAttribute("aria-hidden", "true");
}

// First, since a menu may close itself at the same key, and would leave the focus nowhere.
function onKey(event) {
  if (event.key !== "Escape") return;
  const open = menus.filter((menu) => isOpen(menu) && menu[0].checkVisibility());
  open.forEach(close);
  open.at(-1)?.[0].focus();
}

function onFocus(event) {
  for (const menu of menus) {
    if (isOpen(menu) && event.target !== menu[0] && !menuOf(menu)?.contains(event.target)) close(menu);
  }
}

document.addEventListener("alpine:initialized", () => {
  document.querySelectorAll(PRESSABLE).forEach(makeButton);
  document.querySelectorAll(ICONS).forEach(hideIcon);
  document.addEventListener("keydown", onKey, true);
  document.addEventListener("focusin", onFocus);
});

// The lists to choose permissions from (Django's SelectFilter2.js) name their filters on an element that, as it stands,
// may have no name. They are made once the page has loaded; this comes after.
window.addEventListener("load", () => {
  setTimeout(() => {
    for (const sign of document.querySelectorAll(".search-label-icon")) sign.setAttribute("role", "img");
  });
});
