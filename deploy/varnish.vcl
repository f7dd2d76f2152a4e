vcl 4.1;

# Three replicas behind Varnish. Tested with 7.1.
#
# Each runs: etagd serve /srv/site --listen :8080 --health /healthz
# Start varnishd with -p http_gzip_support=off: else it rewrites Accept-Encoding, never asks for
# brotli or zstd, and makes the tags of what it unpacks weak.

import directors;

probe healthz {
    .url = "/healthz";
    .interval = 1s;
    .window = 2;
    .threshold = 1;
    .initial = 1;
}

backend a { .host = "10.0.0.11"; .port = "8080"; .probe = healthz; }
backend b { .host = "10.0.0.12"; .port = "8080"; .probe = healthz; }
backend c { .host = "10.0.0.13"; .port = "8080"; .probe = healthz; }

sub vcl_init {
    new etagd = directors.round_robin();
    etagd.add_backend(a);
    etagd.add_backend(b);
    etagd.add_backend(c);
}

sub vcl_recv {
    set req.backend_hint = etagd.backend();
}

sub vcl_backend_response {
    # What has to be revalidated each time goes to etagd with the client's conditions and comes back
    # as 304. By default Varnish would fetch all of it to answer 304 itself.
    if (beresp.ttl <= 0s) {
        return (pass(120s));
    }
}
