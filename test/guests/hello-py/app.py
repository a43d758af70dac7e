"""A command in Python that says hello (`hold` stays): the interpreter and a good part of its library, 30 MB, loaded and
initialised when the component is built.
"""

import argparse, asyncio, base64, calendar, collections, configparser, contextlib, copy, csv, dataclasses, datetime
import decimal, difflib, doctest, email.message, email.parser, enum, fractions, ftplib, functools, gettext, graphlib
import hashlib, heapq, html.parser, http.client, http.cookiejar, http.server, imaplib, inspect, ipaddress, json, locale
import logging.config, logging.handlers, mailbox, mimetypes, optparse, pathlib, pdb, pickle, pickletools, platform
import plistlib, poplib, pprint, pydoc, random, re, sched, secrets, shelve, shlex, smtplib, socketserver, statistics
import string, sys, tarfile, tempfile, textwrap, time, timeit, tokenize, trace, traceback, types, typing, unittest.mock
import urllib.request, uuid, wave, weakref, xml.dom.minidom, xml.etree.ElementTree, xml.sax, xmlrpc.client, zipfile
import zoneinfo

from wit_world import exports


class Run(exports.Run):
    def run(self) -> None:
        print("hello from hello-py", flush=True)
        if sys.argv[1:] == ["hold"]:
            while True:
                time.sleep(3600)
