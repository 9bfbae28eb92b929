//! One private MariaDB per test binary, on a unix socket in a temporary folder; it ends with the process.
//!
//! Without a server on the machine there is none, and the tests that want one say so and pass; the gate installs it
//! and asks for it with `ADIT_REQUIRE_MARIADB`.

#![allow(dead_code)] // each test binary uses a part

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, Connection, Executor};

/// Tables of every kind; `DB` stands for the database's name, `DB_b` for a second one.
pub const SHOP: &str = "
    create table `Customer` (
        id bigint unsigned not null auto_increment primary key,
        `e-Mail` varchar(80) not null comment 'Where to write; it''s \"quoted\"',
        state enum('Calm','busy, very','it''s') not null default 'Calm',
        marks set('a','b') default null, price decimal(10,2) unsigned zerofill default 0.00,
        seen timestamp(3) not null default current_timestamp(3) on update current_timestamp(3),
        doc longtext check (json_valid(doc)), raw varbinary(16), yes tinyint(1) default 1, at year, flag bit(3) default b'101',
        whole double(8,2) generated always as (price * 2) virtual, kept int as (yes + 1) stored,
        where_is point not null, name varchar(200) character set latin1 collate latin1_bin invisible default 'x',
        unique key by_mail (`e-Mail`), unique key by_prefix (name(10), state), key plain (state),
        fulltext key words (name), spatial key places (where_is))
        engine=InnoDB comment='Who buys; it''s \"quoted\"';
    create table `order` (
        day date not null, `No.` int not null, customer bigint unsigned not null, `select` int default null,
        primary key (day, `No.`), unique key once (`select`),
        constraint whose foreign key (customer) references `Customer` (id) on delete cascade on update no action)
        comment='What was bought';
    create table order_line (
        line int not null primary key, of_day date, number int,
        constraint in_order foreign key (of_day, number) references `order` (day, `No.`),
        constraint itself foreign key (line) references order_line (line))
        row_format=dynamic;
    create table DB_b.elsewhere (id int primary key);
    create table event (id int not null, at date not null, primary key (id, at))
        partition by range (year(at)) (partition p0 values less than (2026), partition p1 values less than maxvalue);
    create table other (
        id int primary key, el int, foreign key (el) references DB_b.elsewhere (id)) with system versioning;
    create view busy as select id from `Customer`;
    insert into event values (1, '2025-01-01'), (2, '2026-01-01');
    analyze table event;
    create procedure nothing() begin select 1; end;";

pub struct Database {
    pub name: String,
    socket: PathBuf,
}

impl Database {
    /// As a user would write it.
    pub fn url(&self, user: &str, password: &str) -> String {
        format!("mysql://{user}:{password}@localhost/{}?socket={}", self.name, self.socket.display())
    }

    pub async fn admin(&self) -> MySqlConnection {
        connect(&self.socket).await.unwrap()
    }
}

/// A new database with `statements` run in it, and a user `reader` who may read it. `None`: no server here.
pub async fn database(statements: &str) -> Option<Database> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let socket = tokio::task::spawn_blocking(server).await.unwrap()?.to_owned();
    let name = format!("shop_{}", NEXT.fetch_add(1, Ordering::SeqCst));
    let mut admin = connect(&socket).await.unwrap();
    for database in [name.clone(), format!("{name}_b")] {
        admin.execute(AssertSqlSafe(format!("create database {database}"))).await.unwrap();
        let grant =
            format!("grant select, references on {database}.* to reader@localhost identified by 'hush-hush'");
        admin.execute(AssertSqlSafe(grant)).await.unwrap();
    }
    admin.execute(AssertSqlSafe(format!("use {name}"))).await.unwrap();
    admin.execute(AssertSqlSafe(statements.replace("DB_b", &format!("{name}_b")))).await.unwrap();
    Some(Database { name, socket })
}

async fn connect(socket: &Path) -> Result<MySqlConnection, sqlx::Error> {
    MySqlConnection::connect_with(&MySqlConnectOptions::new().socket(socket).username("root")).await
}

/// Where the server logs every statement.
pub fn log_file() -> PathBuf {
    folder().join("statements.log")
}

fn folder() -> PathBuf {
    PathBuf::from(format!("/tmp/adit-test-mariadb-{}", std::process::id()))
}

/// The socket of this test binary's server, which the first test that asks starts.
fn server() -> Option<&'static Path> {
    static SERVER: OnceLock<Option<PathBuf>> = OnceLock::new();
    SERVER
        .get_or_init(|| {
            let folders = ["/usr/sbin", "/usr/libexec", "/usr/bin"].map(Path::new);
            let find =
                |program: &str| folders.map(|f| f.join(program)).into_iter().find(|path| path.exists());
            let made = find("mariadb-install-db").and(find("my_print_defaults"));
            let Some(program) = find("mariadbd").filter(|_| made.is_some()) else {
                assert!(std::env::var_os("ADIT_REQUIRE_MARIADB").is_none(), "no MariaDB server is installed");
                eprintln!(
                    "SKIPPED: no MariaDB server is installed (mariadb-server-core, mariadb-client-core)"
                );
                return None;
            };
            Some(start(&program))
        })
        .as_deref()
}

fn start(program: &Path) -> PathBuf {
    remove_left_overs();
    let folder = folder();
    std::fs::create_dir_all(&folder).unwrap();
    let (data, socket) = (folder.join("data"), folder.join("run.sock"));
    let user = nix::unistd::Uid::effective().is_root().then(|| {
        let user = nix::unistd::User::from_name("nobody").unwrap().expect("there is a nobody");
        std::os::unix::fs::chown(&folder, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        (user.uid.as_raw(), user.gid.as_raw())
    });
    let command = |program: &Path| {
        let mut command = Command::new(program);
        if let Some((uid, gid)) = user {
            command.uid(uid).gid(gid);
        }
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .arg("--no-defaults")
            .arg(format!("--datadir={}", data.display()));
        command
    };
    let made = command("mariadb-install-db".as_ref())
        .args(["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let mut server = command(program);
    server
        .args([
            "--skip-networking",
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=0",
            "--general-log",
        ])
        .arg(format!("--general-log-file={}", log_file().display()))
        .arg(format!("--socket={}", socket.display()))
        .arg(format!("--pid-file={}", folder.join("pid").display()))
        .arg(format!("--log-error={}", folder.join("error.log").display()));
    // the server ends when the thread that began it does, which is when the process does
    let program = program.to_owned();
    std::thread::spawn(move || {
        let arguments: Vec<_> = server.get_args().map(ToOwned::to_owned).collect();
        let mut wrapped = Command::new("setpriv");
        if let Some((uid, gid)) = user {
            wrapped.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()]);
        }
        wrapped
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::null());
        wrapped.status().unwrap();
    });
    let begun = Instant::now();
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        let log = std::fs::read_to_string(folder.join("error.log")).unwrap_or_default();
        assert!(begun.elapsed() < Duration::from_secs(60), "the server does not answer: {log}");
        std::thread::sleep(Duration::from_millis(50));
    }
    socket
}

fn remove_left_overs() {
    for entry in std::fs::read_dir("/tmp").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix("adit-test-mariadb-").and_then(|pid| pid.parse::<u32>().ok())
        else {
            continue;
        };
        if !Path::new(&format!("/proc/{pid}")).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
