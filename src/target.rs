//! A scriptable HTTP and HTTPS server for tests and demos: behaviour is chosen by the request.
