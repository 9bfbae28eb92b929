// Light, dark, or what the system says. Runs before the page is drawn, so that it never flashes.
"use strict";

(() => {
  const KEY = "adit.theme";
  const NEXT = { auto: "light", light: "dark", dark: "auto" };
  const read = () => {
    try {
      const kept = localStorage.getItem(KEY);
      return kept in NEXT ? kept : "auto";
    } catch {
      return "auto"; // storage may be forbidden
    }
  };
  const apply = (theme) => {
    document.documentElement.dataset.theme = theme;
  };
  apply(read());
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    if (!button) return;
    const name = (theme) => {
      button.textContent = { auto: "◐ Auto", light: "○ Light", dark: "● Dark" }[theme];
      button.setAttribute("aria-label", `Colours: ${theme}. Change to ${NEXT[theme]}.`);
    };
    name(read());
    button.addEventListener("click", () => {
      const theme = NEXT[document.documentElement.dataset.theme];
      try {
        localStorage.setItem(KEY, theme);
      } catch {
        // then it holds for this page
      }
      apply(theme);
      name(theme);
    });
  });
})();
