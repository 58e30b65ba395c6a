"""All settings, read from the environment once; README.md has the table.

Out of the box: SQLite and a broker in a folder, everything under `var/`. `var/env` (written by `make demo`) holds
what the processes of one machine share, so that `manage.py` in a second terminal talks to the same services.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy as _
from kombu import Queue

from blog_site.limits import Rate, parse_rate

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env()
env.read_env(env.str("ENV_FILE", default=str(BASE_DIR / "var" / "env")))
VAR_DIR = Path(env.str("VAR_DIR", default=str(BASE_DIR / "var"))).absolute()


def read_object(name: str) -> dict[str, Any]:
    """A setting that is a JSON object, such as {"pool": "training"}; empty where it is not set."""
    text = env.str(name, default="") or "{}"
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} is {text!r}, which is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ImproperlyConfigured(
            f'{name} is {text!r}: set it to a JSON object such as {{"pool": "training"}}'
        )
    return value


def read_rates(name: str, default: str) -> list[Rate]:
    """A setting of rates such as "10/minute,100/hour", which all hold; set to nothing it limits nothing."""
    try:
        return [parse_rate(text) for text in env.str(name, default=default).split(",") if text.strip()]
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}: {error}") from error


# -- Django ------------------------------------------------------------------------------------------------------

DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY", default="")
if not SECRET_KEY:
    if not DEBUG:
        raise ImproperlyConfigured(
            "SECRET_KEY is not set: export a long random string, set DEBUG=1, or run `make demo` once."
        )
    SECRET_KEY = "only for DEBUG: sessions signed with this key are worth nothing"  # noqa: S105
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "unfold",  # the admin's theme; before the admin, whose site and templates it replaces
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.sitemaps",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "corsheaders",
    "django_celery_beat",
    "axes",
    "blog_site.database",
    "blog_site.users",
    "blog_site.media",
    "blog_site.articles",
    "blog_site.comments",
    "blog_site.labels",
    "blog_site.dashboard",
    "blog_site.moderation",
    "blog_site.training",
    "blog_site.api",
    "blog_site.demo",
]

MIDDLEWARE = [
    "blog_site.tracing.trace_requests",
    "blog_site.health.HealthMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "blog_site.policies.tell_policies",
    "corsheaders.middleware.CorsMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "blog_site.allowances.AllowanceMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "blog_site.urls"
WSGI_APPLICATION = "blog_site.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# -- Data: SQLite (WAL) here, MySQL or MariaDB through DATABASE_URL ------------------------------------------------

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": env.db("DATABASE_URL", default=f"sqlite:///{VAR_DIR / 'db.sqlite3'}")}
_OPTIONS_IN_URL = DATABASES["default"].get("OPTIONS", {})  # such as ?ssl_mode=REQUIRED; they outrank ours
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 20,  # seconds a writer waits for another one
        "transaction_mode": "IMMEDIATE",  # a transaction that reads first and writes later would fail at once otherwise
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        **_OPTIONS_IN_URL,
    }
elif DATABASES["default"]["ENGINE"] == "django.db.backends.mysql":
    DATABASES["default"]["OPTIONS"] = {
        "charset": "utf8mb4",
        "connect_timeout": 5,
        "isolation_level": "read committed",
        "init_command": "SET sql_mode='STRICT_TRANS_TABLES'",
        # A server that stops answering must not hold a request for ever.
        "read_timeout": 60,
        "write_timeout": 60,
        **_OPTIONS_IN_URL,
    }
    DATABASES["default"]["TEST"] = {"CHARSET": "utf8mb4", "COLLATION": "utf8mb4_bin"}
    DATABASES["default"]["CONN_MAX_AGE"] = 60
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True

REDIS_URL = env.str("REDIS_URL", default="")
if REDIS_URL:
    CACHES = {
        "default": {
            "BACKEND": "blog_site.cache.ForgivingRedisCache",
            "LOCATION": REDIS_URL,
            "KEY_PREFIX": "huisheng",
            "OPTIONS": {"socket_connect_timeout": 1, "socket_timeout": 1},
        }
    }
    SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"
else:
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    SESSION_ENGINE = "django.contrib.sessions.backends.db"

# -- People ------------------------------------------------------------------------------------------------------

AUTH_USER_MODEL = "users.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
AUTHENTICATION_BACKENDS = [
    "blog_site.users.lockout.LockOut",
    "django.contrib.auth.backends.ModelBackend",
]
LOGIN_URL = "users:sign_in"
LOGIN_REDIRECT_URL = "articles:home"
LOGOUT_REDIRECT_URL = "articles:home"

# -- How often: blog_site/allowances.py ---------------------------------------------------------------------------

ALLOWANCES = {
    "comments": read_rates("LIMIT_COMMENTS", "10/minute,100/hour"),
    "drafts": read_rates("LIMIT_DRAFTS", "30/minute"),  # judged while they are written
    "reports": read_rates("LIMIT_REPORTS", "10/minute,50/hour"),
    "likes": read_rates("LIMIT_LIKES", "60/minute"),
    "uploads": read_rates("LIMIT_UPLOADS", "20/minute,120/hour"),
    "writes": read_rates("LIMIT_WRITES", "60/minute"),
    "api_reads": read_rates("LIMIT_API_READS", "600/minute"),
    "api_signed_in_reads": read_rates("LIMIT_API_SIGNED_IN_READS", "1800/minute"),
    "sign_ins": read_rates("LIMIT_SIGN_INS", "10/minute,60/hour"),
    "sign_ups": read_rates("LIMIT_SIGN_UPS", "20/hour"),
    "passwords": read_rates("LIMIT_PASSWORDS", "10/hour"),
}
# Many accounts may be behind one address: all of them together may do this many times what one may.
ALLOWANCE_ADDRESS_FACTOR = env.int("LIMIT_ADDRESS_FACTOR", default=5)

# Who fails to sign in so often is locked out of that account, from that address, for so long: users/lockout.py.
AXES_FAILURE_LIMIT = env.int("SIGN_IN_FAILURES", default=8)
AXES_COOLOFF_TIME = timedelta(minutes=env.int("SIGN_IN_LOCKOUT_MINUTES", default=15))
AXES_HANDLER = "blog_site.users.lockout.FailureRecord"
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_CLIENT_IP_CALLABLE = "blog_site.users.lockout.address_of"
AXES_USERNAME_CALLABLE = "blog_site.users.lockout.name_of"
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_DISABLE_ACCESS_LOG = True  # who signed in from where is kept of failures alone
AXES_ENABLE_ADMIN = False  # users/admin.py shows them
AXES_VERBOSE = False
SILENCED_SYSTEM_CHECKS = ["axes.W002"]  # its middleware: LockOut's own exception says it to every door

# -- Language and time: Chinese first ------------------------------------------------------------------------------

LANGUAGE_CODE = env.str("LANGUAGE_CODE", default="zh-hans")  # of the command line; browsers choose their own
LANGUAGES = [("zh-hans", _("简体中文")), ("en", _("英语"))]
LOCALE_PATHS = [BASE_DIR / "locale"]
TIME_ZONE = env.str("TIME_ZONE", default="Asia/Shanghai")  # of all times on pages, and of the schedule
USE_TZ = True

# -- The admin's theme; its colours are in static/css/admin.css ------------------------------------------------------

UNFOLD = {
    "SITE_TITLE": _("回声"),
    "SITE_HEADER": _("回声"),
    "SITE_SUBHEADER": _("管理后台"),
    "SITE_ICON": "blog_site.administration.mark_address",
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": "blog_site.administration.mark_address"}
    ],
    "SHOW_LANGUAGES": True,
    "STYLES": ["blog_site.administration.style_address"],
    "SCRIPTS": ["blog_site.administration.script_address"],
    "GLOBAL_CALLBACK": "blog_site.administration.describe_page",
    "DASHBOARD_CALLBACK": "blog_site.administration.describe_front_page",
    "SIDEBAR": {"navigation": "blog_site.administration.list_pages"},
}

# -- Static files and safety behind TLS ----------------------------------------------------------------------------

STATIC_URL = "/static/"
STATIC_ROOT = Path(env.str("STATIC_ROOT", default=str(VAR_DIR / "static")))  # where collectstatic writes
STATICFILES_DIRS = [BASE_DIR / "static"]
STATICFILES_FINDERS = [
    "blog_site.static_files.PublishedFilesFinder",
    "django.contrib.staticfiles.finders.AppDirectoriesFinder",
]
# Pictures of articles: a folder here, or the folder media/ of a store behind HTTP that several web processes share.
MEDIA_URL = "/media/"
_ARTIFACT_STORE_URL = env.str("ARTIFACT_STORE_URL", default=f"file://{VAR_DIR / 'store'}")
MEDIA_STORE_URL = env.str("MEDIA_STORE_URL", default="") or (
    f"{_ARTIFACT_STORE_URL.rstrip('/')}/media"
    if _ARTIFACT_STORE_URL.startswith(("http:", "https:"))
    else f"file://{VAR_DIR / 'media'}"
)
if not MEDIA_STORE_URL.startswith(("http://", "https://", "file:///")):
    raise ImproperlyConfigured(
        f"MEDIA_STORE_URL is {MEDIA_STORE_URL!r}: file:///absolute/folder or http(s)://host/path is wanted"
    )
MEDIA_ROOT = unquote(urlsplit(MEDIA_STORE_URL).path)  # where it is a folder
IMAGE_MAX_BYTES = 10 * 1024**2  # of one upload; infra/nginx/gateway.conf has the same limit
UNUSED_IMAGE_DAYS = env.int(
    "UNUSED_IMAGE_DAYS", default=7
)  # how long an uploaded one may wait for its article
IMAGE_BYTES_PER_WRITER = env.int("IMAGE_BYTES_PER_WRITER", default=1024**3)
VIEWS_CARRIED_SECONDS = 30  # without Redis a process carries its counts of views into the database so often
FILE_UPLOAD_HANDLERS = [
    "blog_site.media.uploads.UploadLimit",
    "django.core.files.uploadhandler.MemoryFileUploadHandler",
    "django.core.files.uploadhandler.TemporaryFileUploadHandler",
]
STORAGES = {
    "default": {
        "BACKEND": "blog_site.media.storage.FolderStorage"
        if MEDIA_STORE_URL.startswith("file:")
        else "blog_site.media.storage.StoreStorage"
    },
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "blog_site.static_files.DigestNamesStorage"
    },
}
# A name with a digest in it never means another content; the gateway has the same rule (infra/nginx/requests.conf).
WHITENOISE_IMMUTABLE_FILE_TEST = r"\.[0-9a-f]{12}\.[a-z0-9.]+$"
ISLANDS_MANIFEST = BASE_DIR / "static" / "built" / "manifest.json"
TLS = env.bool("TLS", default=False)  # set behind a proxy that speaks HTTPS
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = SECURE_SSL_REDIRECT = TLS
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = LANGUAGE_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_HTTPONLY = LANGUAGE_COOKIE_HTTPONLY = True  # scripts of ours read the token against CSRF alone
SECURE_HSTS_SECONDS = 31_536_000 if TLS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = TLS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TLS else None
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
# Other sites learn which blog a reader comes from, and not what was read: an address may hold what was searched for.
SECURE_REFERRER_POLICY = "strict-origin-when-cross-origin"
X_FRAME_OPTIONS = "DENY"
# Where pictures in pages may come from beside the blog itself, as in `img-src`: "https:" or "https://img.example".
IMAGE_SOURCES = env.list("IMAGE_SOURCES", default=[])
BEHIND_GATEWAY = env.bool("BEHIND_GATEWAY", default=False)  # nobody else reaches us: addresses.py
DATA_UPLOAD_MAX_MEMORY_SIZE = 1_048_576

# -- API -----------------------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "blog_site.api.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticatedOrReadOnly"],
    "DEFAULT_SCHEMA_CLASS": "blog_site.api.schema.ApiSchema",
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Huisheng 回声",
    "DESCRIPTION": _(
        "博客的数据，和网页上的一样：读文章、评论和模型的预测不用登录；写作、评论、管理凭令牌或登录状态。"
    ),
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1/",
    "COMPONENT_SPLIT_REQUEST": True,  # what is sent and what is answered are two things
    "TAGS": [
        {"name": "articles", "description": _("文章")},
        {"name": "comments", "description": _("评论")},
        {"name": "predictions", "description": _("模型的预测")},
        {"name": "labels", "description": _("标注（审核员）")},
        {"name": "categories", "description": _("分类与标签")},
        {"name": "me", "description": _("我自己")},
        {"name": "dashboard", "description": _("我的数据")},
        {"name": "tokens", "description": _("登录与令牌")},
    ],
}
API_SIGN_IN_TOKEN_DAYS = env.int("API_SIGN_IN_TOKEN_DAYS", default=90)  # of a token got for a password

# Pages of other addresses that may use the API from a browser: with tokens, never with the session's cookie.
CORS_ALLOWED_ORIGINS = env.list("CORS_ALLOWED_ORIGINS", default=[])
CORS_URLS_REGEX = r"^/api/v1/"
CORS_ALLOW_CREDENTIALS = False
CORS_ALLOW_HEADERS = [
    "accept",
    "accept-language",
    "authorization",
    "content-type",
    "if-match",
    "if-none-match",
]
CORS_EXPOSE_HEADERS = ["etag", "location", "retry-after", "x-request-id"]

# -- Celery ----------------------------------------------------------------------------------------------------------

QUEUE_DIR = VAR_DIR / "queue"
CELERY_BROKER_URL = env.str("CELERY_BROKER_URL", default="folder://localhost//")
if CELERY_BROKER_URL.startswith("folder:"):
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(QUEUE_DIR / "messages"),
        "data_folder_out": str(QUEUE_DIR / "messages"),
        "processed_folder": str(QUEUE_DIR / "taken"),
        "control_folder": str(QUEUE_DIR / "control"),
        "polling_interval": 0.05,  # seconds; kombu's default of 1 s would be seen on the page
    }
else:
    # A request that queues a nudge must not hang on a lost broker: the sweep finds the row anyway.
    CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_connect_timeout": 1, "socket_timeout": 10}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_TASK_PUBLISH_RETRY = False
# A labeller that hangs holds the workers of its own queue only: predictions and training go on. A worker that is
# told no queue (-Q) takes from both.
CELERY_TASK_QUEUES = [Queue("celery"), Queue("labels")]
CELERY_TASK_ROUTES = {"labels.*": {"queue": "labels"}}
CELERY_TIMEZONE = TIME_ZONE
CELERY_BEAT_SCHEDULER = "blog_site.schedule:BeatingScheduler"  # rows made by training/migrations
CELERY_BEAT_MAX_LOOP_INTERVAL = 2
CELERY_WORKER_HIJACK_ROOT_LOGGER = False

# -- The loop ----------------------------------------------------------------------------------------------------------

COMMENT_MAX_CHARACTERS = 10_000
COMMENT_EDIT_MINUTES = env.int("COMMENT_EDIT_MINUTES", default=15)  # so long its author may change a comment
# Tasks that a new comment is queued for, by name: comments know nothing of the apps after them.
COMMENT_POSTED_TASKS = ["comments.score_comment", "labels.label_comment"]
# And those that a moderator's decision about a comment is queued for.
COMMENT_DECIDED_TASKS = ["comments.score_comment", "labels.label_comment", "labels.accept_label"]
# A comment younger than this may still be on its way through the queue; the sweep leaves it alone.
SWEEP_AFTER_SECONDS = env.int("SWEEP_AFTER_SECONDS", default=20)
SWEEP_BATCH = env.int("SWEEP_BATCH", default=200)

INFERENCE_URL = env.str("INFERENCE_URL", default="http://127.0.0.1:8001")
INFERENCE_TOKEN = env.str("INFERENCE_TOKEN", default="")  # a bearer token, where the service wants one
INFERENCE_TIMEOUT_SECONDS = env.float("INFERENCE_TIMEOUT_SECONDS", default=5.0)
# Somebody looks at the page while an explanation is made, and it costs the service up to 65 predictions.
EXPLANATION_TIMEOUT_SECONDS = env.float("EXPLANATION_TIMEOUT_SECONDS", default=2.0)
# While somebody writes: an answer that comes later is of no use to them.
DRAFT_TIMEOUT_SECONDS = env.float("DRAFT_TIMEOUT_SECONDS", default=0.8)
HARSH_DRAFT_SCORE = env.float(
    "HARSH_DRAFT_SCORE", default=0.9
)  # negative by so much: the writer is asked to look again
EXPLANATIONS_PER_MINUTE = env.int("EXPLANATIONS_PER_MINUTE", default=30)  # new ones, of one reader

LABELLER = env.str("LABELLER", default="snownlp")  # snownlp | openai
LABELLER_BASE_URL = env.str("LABELLER_BASE_URL", default="")
LABELLER_API_KEY = env.str("LABELLER_API_KEY", default="")
LABELLER_MODEL = env.str("LABELLER_MODEL", default="")
LABELLER_TIMEOUT_SECONDS = env.float("LABELLER_TIMEOUT_SECONDS", default=30.0)
LABEL_MIN_CONFIDENCE = env.float("LABEL_MIN_CONFIDENCE", default=0.7)

ARTIFACT_STORE_URL = _ARTIFACT_STORE_URL
# Of a store behind HTTP: the blog's token, which reads and writes all; the aggregators'; and the key of addresses to
# single files.
ARTIFACT_STORE_TOKEN = env.str("ARTIFACT_STORE_TOKEN", default="")
ARTIFACT_STORE_RUN_TOKEN = env.str("ARTIFACT_STORE_RUN_TOKEN", default="")
ARTIFACT_STORE_SIGNING_KEY = env.str("ARTIFACT_STORE_SIGNING_KEY", default="")

# Beyond so many, old runs' shards and old models' files are removed every night (training/pruning.py).
STORE_KEEP_RUNS = env.int("STORE_KEEP_RUNS", default=20)
STORE_KEEP_MODELS = env.int("STORE_KEEP_MODELS", default=10)

TRAINING_LAUNCHER = env.str("TRAINING_LAUNCHER", default="local")  # local | kubernetes
TRAINING_RUNS_DIR = VAR_DIR / "runs"  # of the launcher `local`
TRAINING_MIN_LABELS = env.int("TRAINING_MIN_LABELS", default=50)
TRAINING_RUN_DEADLINE_SECONDS = env.int("TRAINING_RUN_DEADLINE_SECONDS", default=3600)
GATE_MAX_MACRO_F1_DROP = env.float("GATE_MAX_MACRO_F1_DROP", default=0.01)

# Of the launcher `kubernetes`: where its Jobs run, and with what.
TRAINING_NAMESPACE = env.str("TRAINING_NAMESPACE", default="huisheng-training")
TRAINER_IMAGE = env.str("TRAINER_IMAGE", default="")
TRAINING_IMAGE_PULL_SECRET = env.str("TRAINING_IMAGE_PULL_SECRET", default="")
TRAINING_JOURNAL_CLAIM = env.str("TRAINING_JOURNAL_CLAIM", default="journals")
TRAINING_PRIORITY_CLASS = env.str("TRAINING_PRIORITY_CLASS", default="huisheng-training")
TRAINING_NODE_SELECTOR = read_object("TRAINING_NODE_SELECTOR")
TRAINING_GPUS = env.int("TRAINING_GPUS", default=0)  # of each trainer
TRAINER_CPU = env.str("TRAINER_CPU", default="1")
TRAINER_MEMORY = env.str("TRAINER_MEMORY", default="1Gi")
AGGREGATOR_CPU = env.str("AGGREGATOR_CPU", default="1")
AGGREGATOR_MEMORY = env.str("AGGREGATOR_MEMORY", default="1Gi")
# So long a pod may wait for its image, a node or its volume before the run is given up.
TRAINING_PENDING_SECONDS = env.float("TRAINING_PENDING_SECONDS", default=600.0)

# How a new champion reaches the inference service: it follows the pointer in the store (pointer), or the model becomes
# an image that a Deployment on a cluster is rolled over to (image).
MODEL_ROLLOUT = env.str("MODEL_ROLLOUT", default="pointer")
# registry/repository as the nodes pull it, and the same as it is reached from here.
MODEL_IMAGE = env.str("MODEL_IMAGE", default="")
MODEL_IMAGE_PUSH = env.str("MODEL_IMAGE_PUSH", default="") or MODEL_IMAGE
INFERENCE_BASE_IMAGE = env.str("INFERENCE_BASE_IMAGE", default="")
INFERENCE_DEPLOYMENT = env.str("INFERENCE_DEPLOYMENT", default="inference")
INFERENCE_NAMESPACE = env.str("INFERENCE_NAMESPACE", default="huisheng")
REGISTRY_USERNAME = env.str("REGISTRY_USERNAME", default="")
REGISTRY_PASSWORD = env.str("REGISTRY_PASSWORD", default="")
REGISTRY_PLAIN_HTTP = env.bool("REGISTRY_PLAIN_HTTP", default=False)
# An image has to be pushed first; what the pods do then, the Deployment's own progressDeadlineSeconds limits.
ROLLOUT_DEADLINE_SECONDS = env.int(
    "ROLLOUT_DEADLINE_SECONDS", default=600 if MODEL_ROLLOUT == "image" else 30
)

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s"}},
    "filters": {"origin": {"()": "blog_site.tracing.OriginFilter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["origin"]}},
    "root": {"handlers": ["stderr"], "level": env.str("LOG_LEVEL", default="INFO")},
    "loggers": {"httpx": {"level": "WARNING"}, "axes": {"level": "WARNING"}},
}
