//! The diagram of the extracted data model: exactly what the export says, moved and magnified, saved.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use adit::wire::result::ExportFormat;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::site::{Site, config};
use crate::support::tiny::{Arch, tiny_model};

/// Names that would be markup if they were not text.
const DDL: &str = r#"
create table customer (id integer primary key, name text not null, referred_by integer references customer (id));
create table product (sku text primary key, title text not null, price numeric(8, 2));
create table orders (id integer primary key, customer_id integer not null references customer (id), placed_at timestamp);
create table order_line (order_id integer references orders (id), sku text references product (sku), quantity integer,
                         primary key (order_id, sku));
create table "<img src=x onerror=window.hacked=1>" ("</text><script>window.hacked=1</script>" integer primary key,
                         "{{ & }}" integer references customer (id));
create table "'""><svg/onload=window.hacked=1>" (x integer primary key);
"#;

fn names(values: &Value) -> BTreeSet<String> {
    values.as_array().unwrap().iter().map(|value| value.as_str().unwrap().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_diagram_is_the_export() {
    let dir = TempDir::new().unwrap();
    let base = tiny_model(dir.path().join("base"), Arch::Llama, 1);
    let models = ["concept", "relationship", "attribute"].map(|name| (name, &*base, ""));
    let site = Site::start(dir, &config(&models, "")).await;
    let job = site
        .submit(
            json!({"task": "data_model", "source": {"format": "ddl", "text": DDL, "dialect": "postgres"}}),
        )
        .await;
    let page = site.open(&format!("/jobs/{job}")).await;
    let ended = site.ended(job).await;
    assert_eq!(ended.counts.total, ended.counts.succeeded + ended.counts.failed);
    let export: Value =
        serde_json::from_str(&site.client.export(job, ExportFormat::Json).await.unwrap()).unwrap();

    // entities, their attributes, and relationships: neither more nor fewer, by their own names
    let of = |list: &str, key: &str| -> Vec<String> {
        export[list].as_array().unwrap().iter().map(|one| one[key].as_str().unwrap().to_string()).collect()
    };
    let count = of("concepts", "name").len();
    assert!(count >= 4, "{export}");
    page.until("!!document.querySelector('.job-head [data-state=completed]')").await;
    page.until(&format!("document.querySelectorAll('[data-entity]').length === {count}")).await;
    let links = of("relationships", "name").len();
    page.until(&format!("document.querySelectorAll('[data-relationship]').length === {links}")).await;
    let all = of("attributes", "name").len();
    page.until(&format!("document.querySelectorAll('[data-attribute]').length === {all}")).await;
    let shown =
        page.eval("[...document.querySelectorAll('[data-entity]')].map((node) => node.dataset.entity)").await;
    assert_eq!(names(&shown), of("concepts", "name").into_iter().collect());
    let shown = page
        .eval("[...document.querySelectorAll('[data-relationship]')].map((node) => [node.dataset.from, node.dataset.relationship, node.dataset.to])")
        .await;
    let wanted: Vec<Value> = export["relationships"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| json!([r["from"], r["name"], r["to"]]))
        .collect();
    assert_eq!(shown, json!(wanted));
    let shown = page
        .eval("[...document.querySelectorAll('[data-attribute]')].map((node) => node.dataset.attribute)")
        .await;
    assert_eq!(names(&shown), of("attributes", "name").into_iter().collect());
    // hostile names are there as text, and nothing of them has run
    let tables = page
        .eval("[...document.querySelectorAll('.er-entity title')].map((node) => node.textContent).join(' ')")
        .await;
    assert!(tables.as_str().unwrap().contains("<img src=x onerror=window.hacked=1>"), "{tables}");
    assert_eq!(
        page.eval(
            "document.querySelectorAll('main img, main script, main svg svg, [onload], [onerror]').length"
        )
        .await,
        0
    );
    assert_eq!(page.eval("window.hacked ?? 'no'").await, "no");
    page.picture("diagram").await;

    is_reviewed(&page, &export).await;
    moves_and_magnifies(&page).await;
    is_saved(&site, &page, &of("concepts", "name")).await;
    site.assert_clean(&page);
}

/// What to look at is listed and drawn apart, and the reader moves the line.
async fn is_reviewed(page: &crate::page::Page, export: &Value) {
    let facts = ["concepts", "relationships", "attributes"]
        .map(|list| export[list].as_array().unwrap().clone())
        .concat();
    let below = |line: f64| {
        let doubtful = |fact: &&Value| match fact["confidence"].as_f64() {
            Some(known) => known < line,
            None => fact["source"] != "catalog" || fact.get("kind").is_none(),
        };
        facts.iter().filter(doubtful).count()
    };
    let told = "document.querySelector('.review-list summary').textContent";
    let count = |n: usize| format!("{told} === '{n} fact{} for review'", if n == 1 { "" } else { "s" });
    page.until(&count(below(0.5))).await;
    page.eval("document.querySelector('.review-list').open = true").await;
    page.eval("(() => { const line = document.querySelector('[name=review_below]'); line.value = '0.9'; line.dispatchEvent(new Event('change')); })()").await;
    page.until(&count(below(0.9))).await;
    assert!(below(0.9) > 0, "a random model is not so sure");
    let marked = page.eval("document.querySelectorAll('.er-entity.review, .er-edge.review, .er g.review[data-attribute]').length").await;
    assert_eq!(marked, below(0.9), "what is listed is drawn apart");
    page.picture("review").await;
}

/// Where the drawing stands: x, y, scale.
async fn place(page: &crate::page::Page) -> [f64; 3] {
    let data = page
        .eval("(({ x, y, scale }) => [x, y, scale].map(Number))(document.querySelector('svg.er').dataset)")
        .await;
    [0, 1, 2].map(|at| data[at].as_f64().unwrap())
}

async fn moves_and_magnifies(page: &crate::page::Page) {
    page.eval("document.querySelector('svg.er').focus()").await;
    page.press("0").await;
    let [x, y, scale] = place(page).await;
    page.press("+").await;
    page.press("+").await;
    let larger = place(page).await;
    assert!(larger[2] > scale * 1.5, "{larger:?} after {scale}");
    page.press("ArrowRight").await;
    page.press("ArrowDown").await;
    let moved = place(page).await;
    assert!(moved[0] < larger[0] && moved[1] < larger[1], "{moved:?} after {larger:?}");
    page.press("-").await;
    assert!(place(page).await[2] < moved[2]);
    page.press("0").await;
    assert_eq!(place(page).await, [x, y, scale]);
    // by hand
    page.eval("document.querySelector('svg.er').scrollIntoView({ block: 'center', behavior: 'instant' })")
        .await;
    let at = page.eval("(({ x, y, width, height }) => [x + width / 2, y + height - 20])(document.querySelector('svg.er').getBoundingClientRect())").await;
    let from = (at[0].as_f64().unwrap(), at[1].as_f64().unwrap());
    page.drag(from, (from.0 + 50.0, from.1 - 30.0)).await;
    let dragged = place(page).await;
    assert!(
        (dragged[0] - x - 50.0).abs() < 1.0 && (dragged[1] - y + 30.0).abs() < 1.0,
        "{dragged:?} after {x} {y}"
    );
    page.click("[aria-label='Show all']").await;
    assert_eq!(place(page).await, [x, y, scale]);
}

/// The file is well-formed, stands alone, and has every entity.
async fn is_saved(site: &Site, page: &crate::page::Page, entities: &[String]) {
    let downloads = site.chrome.dir.path().join("downloads");
    let behavior = json!({"behavior": "allow", "downloadPath": downloads});
    site.chrome.call("Browser.setDownloadBehavior", behavior).await;
    page.click(".tools button:last-child").await;
    let begun = Instant::now();
    let file = loop {
        let found = std::fs::read_dir(&downloads).ok().and_then(|files| {
            files
                .flatten()
                .map(|file| file.path())
                .find(|path| path.extension().is_some_and(|end| end == "svg"))
        });
        if let Some(file) = found {
            break file;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing was saved");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let svg = std::fs::read_to_string(file).unwrap();
    let parse = format!(
        "(() => {{ const file = new DOMParser().parseFromString({}, 'image/svg+xml');
           return {{ root: file.documentElement.localName, wrong: file.querySelector('parsererror')?.textContent ?? null,
             entities: [...file.querySelectorAll('[data-entity]')].map((node) => node.dataset.entity),
             scripts: file.querySelectorAll('script, style, link, image, foreignObject').length }}; }})()",
        json!(svg)
    );
    let seen = page.eval(&parse).await;
    assert_eq!(
        (&seen["root"], &seen["wrong"], &seen["scripts"]),
        (&json!("svg"), &Value::Null, &json!(0)),
        "{seen}"
    );
    assert_eq!(names(&seen["entities"]), entities.iter().cloned().collect());
    assert!(!svg.contains("var(") && !svg.contains("class="), "it needs a style sheet");
    assert!(svg.contains("fill=\"rgb("), "it has its colours");
}
