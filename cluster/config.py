"""The parts of a profile that describe what `up` starts on this machine besides the applications."""

from __future__ import annotations

from pydantic import Field

from serve.config import Strict

Port = int


class LiveKitConfig(Strict):
    """The LiveKit server that `up` starts. Not used where the environment has LIVEKIT_URL."""

    port: Port = Field(default=7880, ge=1, le=65535, description="HTTP and WebSocket, loopback")
    tcp_port: int = Field(
        default=0, ge=0, le=65535, description="Media over TCP; 0: none, because the server listens on every interface"
    )
    udp_port: Port = Field(default=7882, ge=1, le=65535, description="Media over UDP")


class RayConfig(Strict):
    """The Ray head that `up` starts. Ports that are not here are picked by Ray from what is free."""

    gcs_port: Port = Field(default=6379, ge=1, le=65535)
    dashboard_port: Port = Field(default=8265, ge=1, le=65535)
    dashboard_metrics_port: Port = Field(default=44227, ge=1, le=65535, description="The dashboard's own metrics")
    agent_port: Port = Field(default=52365, ge=1, le=65535, description="The node's dashboard agent")
    proxy_port: Port = Field(default=8500, ge=1, le=65535, description="Serve's proxy behind the ingress")
    haproxy_metrics_port: Port = Field(default=9101, ge=1, le=65535)
    haproxy_stats_port: Port = Field(default=8404, ge=1, le=65535)
    ingress_port: Port = Field(
        default=30000, ge=1024, le=64535, description="First of the 1000 ports from which the api's replicas take one"
    )
    num_cpus: int = Field(
        default=16, ge=1, description="In Ray's books, not of the machine: small reservations must never wait"
    )
    num_gpus: int = Field(default=0, ge=0)
    object_store_mb: int = Field(default=200, ge=80)


class MonitoringConfig(Strict):
    """The Prometheus that `up` starts, and the Grafana, where one is installed."""

    enabled: bool = Field(default=False, description="As `parley up --monitoring`")
    prometheus_port: Port = Field(default=9090, ge=1, le=65535, description="Loopback")
    grafana_port: Port = Field(default=3000, ge=1, le=65535, description="Loopback")
