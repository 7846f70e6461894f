//! A load of 1,000 HTTP connections at the same time, from 2 worker processes, against a server
//! that this program starts itself. The server answers nobody before all 1,000 are there.
//!
//! ```text
//! $ cargo run -p process-async --example connections
//! 1000 connections at the same time, from 2 workers
//! 1000 answers of 200 OK
//! 500 from each worker
//! ```

use common::aio::pool::Pool;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;

const CONNECTIONS: usize = 1_000;
const WORKERS: usize = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // The server's ends of the connections are all in this process.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let all_here = Arc::new(Barrier::new(CONNECTIONS));
    tokio::spawn(serve(listener, Arc::clone(&all_here)));

    let pool = Pool::builder()
        .workers(WORKERS)
        .in_flight(CONNECTIONS / WORKERS)
        .build()?;
    let answers = pool.map(get, vec![address; CONNECTIONS]).await?;
    println!("{CONNECTIONS} connections at the same time, from {WORKERS} workers");

    let mut of_worker = BTreeMap::new();
    let mut good = 0;
    for (worker, status) in answers {
        good += usize::from(status == "200 OK");
        *of_worker.entry(worker).or_insert(0) += 1;
    }
    println!("{good} answers of 200 OK");
    let each = of_worker.values().min().copied().unwrap_or_default();
    println!("{each} from each worker");
    pool.finish().await;
    Ok(())
}

/// Runs in the workers: one request. Says who asked, and what the answer was.
async fn get(server: SocketAddr) -> (u32, String) {
    let status = ask(server).await.unwrap_or_else(|error| error.to_string());
    (std::process::id(), status)
}

async fn ask(server: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(server).await?;
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let line = answer.lines().next().unwrap_or_default();
    Ok(line.trim_start_matches("HTTP/1.1 ").to_owned())
}

async fn serve(listener: TcpListener, all_here: Arc<Barrier>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let all_here = Arc::clone(&all_here);
        tokio::spawn(async move { answer(stream, &all_here).await });
    }
}

async fn answer(mut stream: TcpStream, all_here: &Barrier) -> io::Result<()> {
    let mut request = [0; 1_024];
    let _ = stream.read(&mut request).await?;
    all_here.wait().await;
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    stream.write_all(answer).await
}
