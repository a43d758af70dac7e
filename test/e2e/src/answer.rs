//! HTTP over a stream that is there: a connection, or a port that the API forwards.
use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// What a server has answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

impl Answer {
    /// Asks for a path on a stream of its own, which the server closes after the answer.
    ///
    /// # Errors
    /// When the stream ends early, or what comes is no HTTP.
    pub async fn over(
        mut stream: impl AsyncRead + AsyncWrite + Unpin + Send,
        path: &str,
    ) -> Result<Self> {
        // HTTP/1.0, so that the body comes as it is and ends with the stream.
        let request = format!("GET {path} HTTP/1.0\r\nhost: test\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .await
            .with_context(|| format!("ask for {path}"))?;
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .await
            .with_context(|| format!("read the answer to {path}"))?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .with_context(|| format!("the answer to {path} has no end of its head: {answer}"))?;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .with_context(|| format!("the answer to {path} has no status: {head}"))?;
        Ok(Self {
            status,
            body: body.to_owned(),
        })
    }
}
