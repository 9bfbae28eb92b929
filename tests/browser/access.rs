//! For everyone: by keyboard alone, by screen reader, in light and dark, narrow and wide; and to nobody else.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::page::Page;
use crate::site::{Site, config, letters, texts};
use crate::support::tiny::{Arch, tiny_model};

async fn site() -> Site {
    let dir = TempDir::new().unwrap();
    let base = tiny_model(dir.path().join("base"), Arch::Llama, 1);
    let models = ["concept", "relationship", "attribute"].map(|name| (name, &*base, ""));
    Site::start(dir, &config(&models, "")).await
}

/// Presses Tab until the focus is on what `selector` matches.
async fn tab_to(page: &Page, selector: &str) {
    for _ in 0..80 {
        page.press("Tab").await;
        let there = format!("!!document.activeElement?.matches({})", json!(selector));
        if page.eval(&there).await == true {
            let outline = "getComputedStyle(document.activeElement).outlineStyle !== 'none'";
            assert_eq!(page.eval(outline).await, true, "the focus on {selector} cannot be seen");
            return;
        }
    }
    panic!("no number of Tabs leads to {selector}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_reached_by_keyboard() {
    let site = site().await;
    let job = site.submit(json!({"task": "data_model", "source": {"format": "ddl", "dialect": "sqlite",
        "text": "create table a (id integer primary key); create table b (id integer primary key, a_id integer references a (id));"}})).await;
    site.ended(job).await;
    let page = site.open("/").await;
    page.until(&format!("!!document.querySelector(\"[data-job='{job}']\")")).await;
    page.until("!!document.querySelector('[data-model=concept] .pill.good')").await;
    page.press("Tab").await;
    assert_eq!(page.eval("document.activeElement.innerText").await, "Skip to content");
    tab_to(&page, "#theme").await;
    tab_to(&page, "[aria-label='Unload concept']").await;
    // the focus stays although the page is drawn anew meanwhile
    let other = site.submit(texts("concept", letters(2))).await;
    page.until(&format!("!!document.querySelector(\"[data-job='{other}'] [data-state=completed]\")")).await;
    assert_eq!(page.eval("document.activeElement.getAttribute('aria-label')").await, "Unload concept");
    page.press("Enter").await;
    page.until("!!document.querySelector('dialog[open]')").await;
    page.press("Escape").await;
    page.until("!document.querySelector('dialog[open]')").await;
    assert_eq!(page.eval("document.activeElement.getAttribute('aria-label')").await, "Unload concept");
    tab_to(&page, "[name=state]").await;
    tab_to(&page, &format!("[data-job='{job}'] a.id")).await;
    page.press("Enter").await;
    page.until("!!document.querySelector('svg.er [data-entity]')").await;
    tab_to(&page, "svg.er").await;
    let before = page.eval("document.querySelector('svg.er').dataset.scale").await;
    page.press("-").await;
    assert_ne!(page.eval("document.querySelector('svg.er').dataset.scale").await, before);
    tab_to(&page, ".results button[aria-expanded]").await;
    page.press(" ").await;
    page.until("document.activeElement.getAttribute('aria-expanded') === 'true'").await;
    page.until("!!document.querySelector('tr.detail')").await;
    site.assert_clean(&page);
}

/// What every page owes a screen reader.
async fn assert_readable(page: &Page) {
    let seen = page.seen_by_readers().await;
    let roles: BTreeSet<&str> = seen.iter().map(|(role, _)| role.as_str()).collect();
    for role in ["banner", "navigation", "main", "heading", "link", "button"] {
        assert!(roles.contains(role), "no {role} in {roles:?}");
    }
    for (role, name) in &seen {
        let needs_name = [
            "button",
            "link",
            "combobox",
            "searchbox",
            "textbox",
            "image",
            "img",
            "progressbar",
            "region",
            "dialog",
            "article",
            "form",
            "search",
        ];
        assert!(
            !needs_name.contains(&role.as_str()) || !name.trim().is_empty(),
            "a {role} without a name: {seen:?}"
        );
    }
    let wrong = page
        .eval(
            "(() => { const wrong = [];
              const ids = [...document.querySelectorAll('[id]')].map((node) => node.id);
              if (new Set(ids).size !== ids.length) wrong.push('an id twice: ' + ids);
              for (const name of ['aria-labelledby', 'aria-describedby', 'aria-controls']) {
                for (const node of document.querySelectorAll(`[${name}]`)) {
                  if (node.getAttribute('aria-expanded') === 'false' || node.closest('[hidden], dialog:not([open])')) continue;
                  for (const id of node.getAttribute(name).split(' ')) if (!document.getElementById(id)) wrong.push(`${name} of ${node.outerHTML.slice(0, 90)}`);
                }
              }
              if (document.querySelectorAll('h1').length !== 1) wrong.push('not one h1');
              let level = 0;
              for (const node of document.querySelectorAll('h1, h2, h3, h4')) {
                if (!node.checkVisibility()) continue;
                const own = Number(node.localName[1]);
                if (own > level + 1) wrong.push(`h${own} after h${level}: ${node.innerText}`);
                level = own;
              }
              for (const table of document.querySelectorAll('table')) if (!table.caption && !table.closest('.docs')) wrong.push('a table without a caption');
              if (document.documentElement.lang !== 'en') wrong.push('no language');
              if (document.title === '') wrong.push('no title');
              return wrong; })()",
        )
        .await;
    assert_eq!(wrong, json!([]));
}

/// Texts whose contrast with what is behind them is less than 4.5 to 1.
async fn assert_contrast(page: &Page) {
    let wrong = page
        .eval(
            "(() => {
              const pen = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
              const rgba = (colour) => { pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
                const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255]; };
              const over = (top, under) => top.slice(0, 3).map((part, at) => part * top[3] + under[at] * (1 - top[3]));
              const behind = (node) => { const layers = [];
                for (let at = node; at; at = at.parentElement) { const colour = rgba(getComputedStyle(at).backgroundColor);
                  layers.push(colour); if (colour[3] === 1) break; }
                return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]); };
              const light = (rgb) => { const [r, g, b] = rgb.map((part) => { const c = part / 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
                return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
              const wrong = [];
              const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
              while (walk.nextNode()) { const node = walk.currentNode.parentElement;
                if (!walk.currentNode.data.trim() || !node.checkVisibility() || node.closest('svg, noscript, .unseen, button:disabled')) continue;
                const style = getComputedStyle(node); const ground = behind(node);
                const [a, b] = [light(over(rgba(style.color), ground)), light(ground)];
                const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
                if (ratio < 4.5) wrong.push(`${ratio.toFixed(2)}: ${walk.currentNode.data.trim().slice(0, 40)} (${node.className}) ${style.color} on ${ground}`); }
              return [...new Set(wrong)]; })()",
        )
        .await;
    assert_eq!(wrong, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_readable_in_light_and_dark() {
    let site = site().await;
    let job = site.submit(texts("concept", letters(40))).await;
    let mut long = letters(3);
    long[1] = "word ".repeat(9_000);
    let failed = site.submit(texts("concept", long)).await;
    site.ended(job).await;
    site.ended(failed).await;
    let page = site.open("/").await;
    page.until(&format!("!!document.querySelector(\"[data-job='{job}']\")")).await;
    page.until("document.querySelectorAll('.card.ready').length === 3").await;
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        page.prefer(scheme).await;
        for (name, path, there) in [
            ("overview", "/".to_string(), "!!document.querySelector('[data-job]')"),
            (
                "job",
                format!("/jobs/{failed}"),
                "!!document.querySelector('[data-code]') && !!document.querySelector('[data-seq]')",
            ),
            ("docs", "/docs".to_string(), "!!document.querySelector('.operation')"),
        ] {
            page.go(&format!("{}{path}", site.server.url)).await;
            page.until(there).await;
            if name != "docs" {
                page.until("document.getElementById('contact').innerText.match(/Live|Up to date/)").await;
            }
            assert_readable(&page).await;
            assert_contrast(&page).await;
            assert!(!page.picture(&format!("{name}-{scheme}")).await.is_empty());
        }
        grounds.push(page.eval("getComputedStyle(document.body).backgroundColor").await);
    }
    assert_ne!(grounds[0], grounds[1], "dark is not light");

    // the choice of the user goes before the system's, and lasts
    page.go(&format!("{}/", site.server.url)).await;
    page.click("#theme").await;
    let light = page.eval("getComputedStyle(document.body).backgroundColor").await;
    assert_eq!(light, grounds[0]);
    page.go(&format!("{}/docs", site.server.url)).await;
    assert_eq!(page.eval("getComputedStyle(document.body).backgroundColor").await, light);

    // nothing sticks out of a narrow window
    page.resize(390, 800).await;
    for path in ["/".to_string(), format!("/jobs/{failed}")] {
        page.go(&format!("{}{path}", site.server.url)).await;
        page.until("!!document.querySelector('[data-job], [data-seq]')").await;
        let width = page.eval("document.documentElement.scrollWidth").await;
        assert!(width.as_i64().unwrap() <= 390, "{path} is {width} wide");
        page.picture(if path == "/" { "overview-narrow" } else { "job-narrow" }).await;
    }
    site.assert_clean(&page);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_forbids_what_the_pages_do_not_need() {
    let site = site().await;
    let page = site.open("/").await;
    page.until("document.querySelectorAll('.card').length === 3").await;
    let policy =
        page.eval("fetch('/').then((answer) => answer.headers.get('content-security-policy'))").await;
    let policy = policy.as_str().unwrap();
    for rule in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    site.assert_clean(&page);
    // the browser obeys it: nothing that would slip in could run, or tell anybody
    let tried = page
        .eval(
            "(async () => { const script = document.createElement('script'); script.textContent = 'window.hacked = 1';
              document.body.append(script);
              const call = await fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused');
              return [window.hacked ?? 'no', call]; })()",
        )
        .await;
    assert_eq!(tried, json!(["no", "refused"]));
    let refused: Vec<Value> =
        vec![json!(page.errors().iter().filter(|error| error.contains("Content Security Policy")).count())];
    assert!(refused[0].as_u64().unwrap() >= 2, "{:?}", page.errors());
}
